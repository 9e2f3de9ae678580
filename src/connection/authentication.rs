//! Enhanced authentication: the exchange between CONNECT and CONNACK, and later ones while packets flow.
//!
//! Which AUTH has its place where is for [`session::Authentication`](crate::session::Authentication) to say, and
//! who the client is for [`Authenticator::proceed`](crate::auth::Authenticator::proceed).

use super::Connection;
use super::handshake::{Opening, Refusal};
use crate::auth::{Exchange, Identity, ScramError, Step};
use crate::broker::Broker;
use crate::codec::{Auth, Connect, Packet, ReasonCode, encode};
use crate::record::Lsn;
use crate::session::{AuthStep, Authentication, Close, ReplyPacket};

impl Opening {
    /// Runs the exchange that a CONNECT with an authentication method begins. Gives who the client is, and what
    /// it is to check in the CONNACK.
    ///
    /// # Errors
    /// The client is refused, or has left.
    pub async fn authenticate(
        &mut self,
        broker: &Broker,
        connect: &Connect<'_>,
        authentication: &mut Authentication,
    ) -> Result<(Identity, Vec<u8>), Refusal> {
        let method = connect.authentication_method.unwrap_or_default();
        let mut exchange = broker.auth.begin(method).map_err(|reason| {
            Close::because(reason, "the authentication method is not offered, or there is no password file")
        })?;
        let mut data = connect.authentication_data.unwrap_or_default().to_vec();
        loop {
            match broker.auth.proceed(exchange, &data).map_err(not_authorized)? {
                Step::Continue(next, challenge) => {
                    exchange = next;
                    let challenge = authentication.challenge(challenge);
                    self.send(&encoded(&challenge, self.size_max)?).await?;
                    data = self.receive_auth(authentication).await?;
                }
                Step::Done(identity, data) => {
                    self.judge_end(connect, &identity)?;
                    return Ok((identity, data));
                }
            }
        }
    }

    /// The data of the next AUTH; nothing else may come before CONNACK but DISCONNECT [MQTT-3.1.2-30].
    async fn receive_auth(&mut self, authentication: &mut Authentication) -> Result<Vec<u8>, Refusal> {
        loop {
            if let Some((packet, len)) = self.decoder.decode(&self.partial).map_err(Close::from)? {
                let Packet::Auth(auth) = packet else {
                    return Err(match packet {
                        Packet::Disconnect(_) => Refusal::Gone,
                        _ => not_before_connack().into(),
                    });
                };
                authentication.handle_auth(&auth)?;
                self.partial.drain(..len);
                return Ok(auth.data.unwrap_or_default());
            }
            self.read_more().await?;
        }
    }

    /// What has come already was sent before CONNACK; and a User Name beside the method has to be the one that
    /// was proved.
    fn judge_end(&self, connect: &Connect<'_>, identity: &Identity) -> Result<(), Close> {
        const DISCONNECT: u8 = 14;
        const AUTH: u8 = 15;
        if self.partial.first().is_some_and(|first| !matches!(first >> 4, DISCONNECT | AUTH)) {
            return Err(not_before_connack());
        }
        if connect.user_name.is_some() && connect.user_name != identity.user() {
            let detail = "the User Name of CONNECT is not the user who has authenticated";
            return Err(Close::because(ReasonCode::NotAuthorized, detail));
        }
        Ok(())
    }
}

impl Connection {
    /// Handles an AUTH of a client that is connected: a re-authentication [MQTT-4.12.1-1]. Everything else goes
    /// on meanwhile, with the rights that the client has.
    pub(super) fn handle_auth(&mut self, auth: Auth) -> Result<(), Close> {
        let step = self.authentication.handle_auth(&auth)?;
        let broker = &self.context.broker;
        let exchange = match (step, self.exchange.take()) {
            (AuthStep::Continues, Some(exchange)) => exchange,
            _ => self.begin_again()?,
        };
        let step = broker.auth.proceed(exchange, auth.data.as_deref().unwrap_or_default());
        // [MQTT-4.12.1-2]
        let answer = match step.map_err(not_authorized)? {
            Step::Continue(exchange, data) => {
                self.exchange = Some(exchange);
                self.authentication.challenge(data)
            }
            Step::Done(identity, data) => {
                self.accept_again(identity)?;
                self.authentication.success(data)
            }
        };
        self.session.answer_later(Lsn::ZERO, ReplyPacket::Auth(answer.into()));
        Ok(())
    }

    fn begin_again(&self) -> Result<Exchange, Close> {
        let method = self.authentication.method().unwrap_or_default();
        self.context.broker.auth.begin(method).map_err(|reason| {
            Close::because(reason, "re-authentication, and the password file is no longer there")
        })
    }

    /// The client stays who it is: session, will and rights belong to its user.
    fn accept_again(&mut self, identity: Identity) -> Result<(), Close> {
        if identity.user() != self.identity.user() {
            return Err(Close::because(ReasonCode::NotAuthorized, "re-authentication as another user"));
        }
        self.identity = identity;
        self.renew_rights()
    }
}

/// The AUTH as bytes, unless it is larger than the client takes [MQTT-3.1.2-24].
fn encoded(auth: &Auth, size_max: u32) -> Result<Vec<u8>, Close> {
    let mut bytes = Vec::new();
    let written = encode::auth(auth, None, size_max, &mut bytes);
    let too_large = "AUTH exceeds the client's Maximum Packet Size";
    written.map(|()| bytes).map_err(|_| Close::because(ReasonCode::PacketTooLarge, too_large))
}

fn not_authorized(error: ScramError) -> Close {
    Close::because(ReasonCode::NotAuthorized, error.0)
}

fn not_before_connack() -> Close {
    Close::protocol_error("a packet that may not come before CONNACK; only AUTH and DISCONNECT may")
}
