//! Enhanced authentication (MQTT 5.0, section 4.12) with the one method that there is: SCRAM-SHA-256.
//!
//! An [`Exchange`] is a value: it is fed what the client sent and gives what the client is to get. Nothing here
//! blocks, because what costs time in SCRAM is the client's to do.
//!
//! Why it is written here and not taken from a package: `docs/adr/0009-scram-by-hand.md`.
//!
//! Invariant: to whoever does not know the password, a user who exists looks like one who does not.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::{
    Authenticator, Identity,
    credential::Credential,
    identity::Proof,
    scram::{Challenge, ClientFirst, ScramError},
};
use crate::codec::ReasonCode;

/// The authentication method that a CONNECT may name.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// Random bytes in our half of the nonce.
const NONCE_BYTES: usize = 18;

/// An authentication under way.
pub struct Exchange(State);

enum State {
    Begun,
    /// The client came without data, and was asked for its first message.
    Asked,
    Challenged(Box<Challenge>),
}

/// What follows from what the client sent.
pub enum Step {
    /// The client is to answer this; empty only when nothing has come from it yet.
    Continue(Exchange, Vec<u8>),
    /// The client has proved who it is, and gets this as our proof.
    Done(Identity, Vec<u8>),
}

impl Authenticator {
    /// Begins an exchange by this method.
    ///
    /// # Errors
    /// [`ReasonCode::BadAuthenticationMethod`] for a method that is not offered; without a password file none
    /// is [MQTT-4.12.0-1].
    pub fn begin(&self, method: &str) -> Result<Exchange, ReasonCode> {
        match method == SCRAM_SHA_256 && self.has_users() {
            true => Ok(Exchange(State::Begun)),
            false => Err(ReasonCode::BadAuthenticationMethod),
        }
    }

    /// Goes on with an exchange by what the client sent. Does not block.
    ///
    /// # Errors
    /// The exchange has failed; the client is told [`ReasonCode::NotAuthorized`] [MQTT-4.12.0-4].
    pub fn proceed(&self, exchange: Exchange, data: &[u8]) -> Result<Step, ScramError> {
        match exchange.0 {
            State::Begun if data.is_empty() => Ok(Step::Continue(Exchange(State::Asked), Vec::new())),
            State::Begun | State::Asked => {
                let nonce = BASE64.encode(rand::random::<[u8; NONCE_BYTES]>());
                let first = ClientFirst::parse(data)?;
                let (verifier, is_known) = self.verifier(&first.user);
                let (challenge, message) = first.challenge(verifier, is_known, &nonce);
                Ok(Step::Continue(Exchange(State::Challenged(challenge.into())), message.into()))
            }
            State::Challenged(challenge) => {
                let user = challenge.user.clone();
                let (verifier, message) = challenge.conclude(data)?;
                let proof = Proof::Password(Credential::Scram(Arc::clone(&verifier)));
                Ok(Step::Done(Identity { user: Some(user), proof }, message.into()))
            }
        }
    }
}
