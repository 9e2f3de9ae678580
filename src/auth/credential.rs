//! What a password file keeps for a user: a hash, or a verifier for SCRAM. Both check a password.

use std::sync::Arc;

use super::{hash::PasswordHash, scram_verifier::ScramVerifier};

/// What is kept of a user's password. Has no `Debug`, so that it cannot end in a log. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Checks a password that comes in the clear.
    Hash(Arc<PasswordHash>),
    /// Checks proofs, and also passwords.
    Scram(Arc<ScramVerifier>),
}

impl Credential {
    /// Reads what follows the user name in a line; the error says what is wrong without repeating any of it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(scram) = text.strip_prefix("$scram-sha-256$") else {
            return Ok(Self::Hash(PasswordHash::parse(text)?.into()));
        };
        match *scram.split('$').collect::<Vec<_>>().as_slice() {
            [parameters, salt, stored_key, server_key] => {
                let verifier = ScramVerifier::parse(parameters, [salt, stored_key, server_key])?;
                Ok(Self::Scram(verifier.into()))
            }
            _ => Err("a SCRAM line must be `user:$scram-sha-256$i=ITERATIONS$SALT$STORED_KEY$SERVER_KEY`"),
        }
    }

    /// Whether this is the password. Blocks for as long as the hash costs; compares in constant time.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Hash(hash) => hash.verify(password),
            Self::Scram(verifier) => verifier.verify(password),
        }
    }

    /// One that no password has, which costs as much to check as `self` does.
    pub(super) fn decoy(&self) -> Self {
        match self {
            Self::Hash(hash) => Self::Hash(hash.decoy().into()),
            Self::Scram(verifier) => {
                Self::Scram(ScramVerifier::decoy(verifier.iterations, verifier.salt.clone()).into())
            }
        }
    }

    /// What a check costs, roughly in half microseconds; only to find the dearest of a file.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Hash(hash) => hash.cost(),
            Self::Scram(verifier) => verifier.iterations.into(),
        }
    }

    /// The verifier for SCRAM, if this is one.
    pub(super) fn scram(&self) -> Option<&Arc<ScramVerifier>> {
        match self {
            Self::Hash(_) => None,
            Self::Scram(verifier) => Some(verifier),
        }
    }
}

impl Default for Credential {
    /// A decoy that costs as much as the hashes that [`PasswordHash::make`] makes.
    fn default() -> Self {
        Self::Hash(PasswordHash::default().into())
    }
}
