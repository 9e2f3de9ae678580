//! What AUTH means when it comes: the order of enhanced authentication (MQTT 5.0, section 4.12).
//!
//! It knows neither the method nor who the client is: it says whether an AUTH begins an exchange or goes on
//! with one, and what our answers look like. It begins with CONNECT and lasts as long as the connection.
//!
//! Invariant: without an authentication method in CONNECT no AUTH is taken and none is made.

use super::Close;
use crate::codec::{Auth, Connack, Connect, ReasonCode};

/// How far the enhanced authentication of a connection is.
#[derive(Debug)]
pub struct Authentication {
    /// The authentication method of CONNECT; it stays the same [MQTT-4.12.0-5].
    method: Option<Box<str>>,
    is_under_way: bool,
}

/// What an AUTH of the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStep {
    /// It begins a re-authentication.
    Begins,
    /// It answers what we have sent.
    Continues,
}

impl Authentication {
    /// That of a connection that begins with this CONNECT: it begins an exchange when it names a method.
    pub fn of(connect: &Connect<'_>) -> Self {
        let method = connect.authentication_method.map(Into::into);
        Self { is_under_way: method.is_some(), method }
    }

    /// The authentication method, when CONNECT named one.
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// Judges an AUTH.
    ///
    /// # Errors
    /// When it has no place here: the connection ends by a protocol error.
    pub fn handle_auth(&mut self, auth: &Auth) -> Result<AuthStep, Close> {
        let Some(method) = &self.method else {
            // [MQTT-4.12.0-7]
            return Err(Close::protocol_error("AUTH, and CONNECT had no authentication method"));
        };
        if *auth.method != **method {
            // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
            return Err(Close::protocol_error("AUTH with another authentication method than CONNECT"));
        }
        match (auth.reason, self.is_under_way) {
            // [MQTT-4.12.0-3]
            (ReasonCode::ContinueAuthentication, true) => Ok(AuthStep::Continues),
            (ReasonCode::ReAuthenticate, false) => {
                self.is_under_way = true;
                Ok(AuthStep::Begins)
            }
            (ReasonCode::ContinueAuthentication, false) => {
                Err(Close::protocol_error("AUTH goes on with an authentication that was not begun"))
            }
            (ReasonCode::ReAuthenticate, true) => {
                Err(Close::protocol_error("AUTH begins an authentication while another is under way"))
            }
            _ => Err(Close::protocol_error("AUTH with a reason code that is the server's to send")),
        }
    }

    /// The AUTH that asks the client for more [MQTT-4.12.0-2].
    pub fn challenge(&self, data: Vec<u8>) -> Auth {
        self.auth(ReasonCode::ContinueAuthentication, data)
    }

    /// The AUTH that ends a re-authentication well.
    pub fn success(&mut self, data: Vec<u8>) -> Auth {
        self.is_under_way = false;
        self.auth(ReasonCode::Success, data)
    }

    /// Ends the exchange of CONNECT well: the CONNACK says so.
    pub fn accept(&mut self, data: Vec<u8>, connack: &mut Connack) {
        self.is_under_way = false;
        connack.properties.authentication_method = self.method.as_deref().map(Into::into);
        connack.properties.authentication_data = some(data);
    }

    fn auth(&self, reason: ReasonCode, data: Vec<u8>) -> Auth {
        Auth { reason, method: self.method.as_deref().unwrap_or_default().to_owned(), data: some(data) }
    }
}

fn some(data: Vec<u8>) -> Option<Vec<u8>> {
    Some(data).filter(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Version;

    fn of(method: Option<&str>) -> Authentication {
        Authentication::of(&Connect { authentication_method: method, ..Connect::new(Version::V5, "a") })
    }

    fn auth(reason: ReasonCode, method: &str) -> Auth {
        Auth { reason, method: method.into(), data: None }
    }

    #[test]
    fn an_exchange_has_one_method_and_one_order() {
        use ReasonCode::{ContinueAuthentication, ProtocolError, ReAuthenticate, Success};
        let mut it = of(Some("M"));
        let mut handle = |reason, method| it.handle_auth(&auth(reason, method)).map_err(|close| close.reason);
        let wrong = Err(ProtocolError);
        assert_eq!(handle(ReAuthenticate, "M"), wrong, "before the first has ended");
        assert_eq!(handle(Success, "M"), wrong);
        assert_eq!(handle(ContinueAuthentication, "m"), wrong);
        assert_eq!(handle(ContinueAuthentication, "M"), Ok(AuthStep::Continues));
        let mut connack = Connack { session_present: false, reason: Success, properties: Default::default() };
        it.accept(vec![1], &mut connack);
        assert_eq!(connack.properties.authentication_method.as_deref(), Some("M"));
        assert_eq!(connack.properties.authentication_data, Some(vec![1]));

        let mut handle = |reason, method| it.handle_auth(&auth(reason, method)).map_err(|close| close.reason);
        assert_eq!(handle(ContinueAuthentication, "M"), wrong, "none is under way");
        assert_eq!(handle(ReAuthenticate, "N"), wrong);
        assert_eq!(handle(ReAuthenticate, "M"), Ok(AuthStep::Begins));
        assert_eq!(handle(ReAuthenticate, "M"), wrong, "one is under way");
        assert_eq!(it.challenge(vec![]), auth(ContinueAuthentication, "M"));
        assert_eq!(it.success(vec![2]), Auth { data: Some(vec![2]), ..auth(Success, "M") });
        assert!(it.handle_auth(&auth(ContinueAuthentication, "M")).is_err(), "it has ended");
    }

    #[test]
    fn without_a_method_there_is_no_auth() {
        let mut it = of(None);
        for reason in [ReasonCode::Success, ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate] {
            assert_eq!(it.handle_auth(&auth(reason, "")).unwrap_err().reason, ReasonCode::ProtocolError);
        }
        let reason = ReasonCode::Success;
        let mut connack = Connack { session_present: false, reason, properties: Default::default() };
        it.accept(Vec::new(), &mut connack);
        assert_eq!(connack.properties, Default::default());
    }
}
