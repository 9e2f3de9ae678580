//! What is kept of a password for SCRAM-SHA-256 (RFC 5802, RFC 7677), and the arithmetic of a proof.
//!
//! Who reads a verifier can try passwords against it, one PBKDF2 each, but cannot log in with it. A proof is
//! checked with three hashes and no PBKDF2: that is the client's to pay. Only a password that comes in the
//! clear, in a CONNECT, costs us one.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Fewest iterations of a verifier (RFC 7677, section 4).
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;
/// Most iterations of a verifier: some seconds of a client.
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;
/// Iterations of a verifier unless others are asked for: a tenth of a second or two of a fast core.
pub const SCRAM_ITERATIONS: u32 = 600_000;

/// Bytes of salt that new verifiers have.
pub(super) const SALT_BYTES: usize = 16;

/// Also the bound for the salt that a file may hold: it goes to whoever asks for it.
const SALT_BYTES_MAX: usize = 64;
const SALT_BYTES_MIN: usize = 8;

/// A key, a signature or a proof.
pub(super) type Key = [u8; 32];

/// What is kept of a password. Has no `Debug`, so that it cannot end in a log.
#[derive(PartialEq, Eq)]
pub(super) struct ScramVerifier {
    pub(super) iterations: u32,
    pub(super) salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
}

impl ScramVerifier {
    /// Reads the fields of `$scram-sha-256$i=ITERATIONS$SALT$STORED_KEY$SERVER_KEY`; the error says what is
    /// wrong without repeating any of it.
    pub(super) fn parse(parameters: &str, fields: [&str; 3]) -> Result<Self, &'static str> {
        let iterations = parameters.strip_prefix("i=").and_then(|number| number.parse().ok());
        let iterations =
            iterations.filter(|count| (SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(count)).ok_or(
                "the iterations of a `$scram-sha-256$` line must be `i=` and a number from 4096 to 10000000",
            )?;
        let [salt, stored_key, server_key] = fields.map(|field| {
            BASE64.decode(field).map_err(|_| "a field of the `$scram-sha-256$` line is not base64")
        });
        let salt: Box<[u8]> = salt?.into();
        if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
            return Err("the salt of a `$scram-sha-256$` line must have 8 to 64 bytes");
        }
        let key = |bytes: Vec<u8>| {
            Key::try_from(bytes)
                .map_err(|_| "a key of the `$scram-sha-256$` line has not 32 bytes: was it cut?")
        };
        Ok(Self { iterations, salt, stored_key: key(stored_key?)?, server_key: key(server_key?)? })
    }

    /// The form that [`ScramVerifier::parse`] reads.
    pub(super) fn to_line(&self) -> String {
        let [salt, stored_key, server_key] =
            [&self.salt, &self.stored_key[..], &self.server_key].map(|bytes| BASE64.encode(bytes));
        format!("$scram-sha-256$i={}${salt}${stored_key}${server_key}", self.iterations)
    }

    /// The verifier of a password. Blocks for as long as the iterations take.
    pub(super) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = Key::default();
        pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
        Self {
            iterations,
            salt: salt.into(),
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// One that no password has.
    pub(super) fn decoy(iterations: u32, salt: Box<[u8]>) -> Self {
        Self { iterations, salt, stored_key: Key::default(), server_key: Key::default() }
    }

    /// Whether this is the password, as a CONNECT carries it. Blocks for as long as the iterations take.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        // What cannot be prepared is no password of a verifier, and costs as much.
        let prepared = std::str::from_utf8(password).ok().and_then(prepare);
        let password = prepared.as_ref().map_or(password, |prepared| prepared.as_bytes());
        let computed = Self::derive(password, &self.salt, self.iterations);
        computed.stored_key.ct_eq(&self.stored_key).into()
    }

    /// Whether the proof was made by somebody who knows the password, for this exchange.
    pub(super) fn proves(&self, proof: &Key, auth_message: &str) -> bool {
        let mut client_key = hmac(&self.stored_key, auth_message.as_bytes());
        client_key.iter_mut().zip(proof).for_each(|(byte, proof)| *byte ^= proof);
        Sha256::digest(client_key).ct_eq(&self.stored_key).into()
    }

    /// What shows the client that we have its verifier.
    pub(super) fn signature(&self, auth_message: &str) -> Key {
        hmac(&self.server_key, auth_message.as_bytes())
    }
}

/// A user name or password as both sides write it (SASLprep, RFC 4013): the same letters in the same form.
/// `None` when it holds what the profile forbids.
pub(super) fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok()
}

/// HMAC-SHA-256, which takes keys of any length.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> Key {
    // The trait can refuse a key, HMAC has no reason to.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return Key::default() };
    mac.chain_update(message).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python: salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096), and
    // the two HMACs of it: user and password of the example in RFC 7677.
    const PENCIL: &str = "$scram-sha-256$i=4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn parse(line: &str) -> Result<ScramVerifier, &'static str> {
        match *line.split('$').collect::<Vec<_>>().as_slice() {
            ["", "scram-sha-256", parameters, salt, stored, server] => {
                ScramVerifier::parse(parameters, [salt, stored, server])
            }
            _ => Err("fields"),
        }
    }

    #[test]
    fn a_password_in_the_clear_is_checked_with_one_derivation() {
        let Ok(verifier) = parse(PENCIL) else { panic!() };
        assert!(verifier.verify(b"pencil"));
        assert!(!verifier.verify(b"pencils") && !verifier.verify(b"") && !verifier.verify(b"\xff"));
        assert_eq!(verifier.to_line(), PENCIL);
    }

    #[test]
    fn both_forms_of_a_letter_are_the_same_password() {
        let composed = ScramVerifier::derive("caf\u{e9}".as_bytes(), &[7; 16], SCRAM_ITERATIONS_MIN);
        assert!(composed.verify("cafe\u{301}".as_bytes()), "the accent on its own");
        assert!(composed.verify("caf\u{e9}\u{ad}".as_bytes()), "a soft hyphen is mapped to nothing");
        assert_eq!(prepare("a\u{7}"), None);
        assert_eq!(prepare("\u{2168}").as_deref(), Some("IX"));
    }

    #[test]
    fn a_bad_line_is_refused() {
        for (from, to) in [
            ("i=4096", "i=4095"),
            ("i=4096", "i=10000001"),
            ("i=4096", "4096"),
            ("i=4096", "i=-1"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "AAAA"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22Z*"),
            ("WG5d", ""),
            ("wfPL", "wfPLwfPL"),
        ] {
            assert!(parse(&PENCIL.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_decoy_has_no_password_and_no_proof() {
        let decoy = ScramVerifier::decoy(SCRAM_ITERATIONS_MIN, [1; 16].into());
        assert!(!decoy.verify(b"") && !decoy.proves(&Key::default(), ""));
    }
}
