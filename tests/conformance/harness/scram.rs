//! A client of SCRAM-SHA-256 (RFC 5802, RFC 7677), written down without the broker's own code.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::unique;

/// Few, so that tests are quick.
pub const ITERATIONS: u32 = 4096;

/// One exchange of a client.
pub struct Scram {
    password: String,
    gs2: &'static str,
    bare: String,
}

impl Scram {
    pub fn new(user: &str, password: &str) -> Self {
        let nonce = unique("fyko+d2lbbFgONRv9qkxdawL");
        Self { password: password.into(), gs2: "n,,", bare: format!("n={user},r={nonce}") }
    }

    /// With another word on channel binding.
    pub fn gs2(mut self, header: &'static str) -> Self {
        self.gs2 = header;
        self
    }

    /// The client's first message.
    pub fn first(&self) -> Vec<u8> {
        [self.gs2, &self.bare].concat().into()
    }

    /// The client's answer to the challenge, and what it expects of the server then.
    pub fn last(&self, challenge: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let challenge = Challenge::parse(challenge);
        let without_proof = format!("c={},r={}", BASE64.encode(self.gs2), challenge.nonce);
        let signed = format!("{},{},{without_proof}", self.bare, challenge.message);
        let keys = Keys::of(&self.password, &challenge.salt, challenge.iterations);
        let mut proof = hmac(&Sha256::digest(keys.client), signed.as_bytes());
        proof.iter_mut().zip(keys.client).for_each(|(byte, key)| *byte ^= key);
        let signature = hmac(&keys.server, signed.as_bytes());
        let last = format!("{without_proof},p={}", BASE64.encode(proof));
        (last.into(), format!("v={}", BASE64.encode(signature)).into())
    }
}

/// The server's first message.
#[derive(Debug, PartialEq)]
pub struct Challenge {
    message: String,
    pub nonce: String,
    pub salt: Vec<u8>,
    pub iterations: u32,
}

impl Challenge {
    pub fn parse(message: &[u8]) -> Self {
        let message = String::from_utf8(message.to_vec()).unwrap();
        let fields: Vec<&str> = message.split(',').collect();
        let [nonce, salt, iterations] = fields[..] else { panic!("{message}") };
        Self {
            nonce: nonce.strip_prefix("r=").unwrap().into(),
            salt: BASE64.decode(salt.strip_prefix("s=").unwrap()).unwrap(),
            iterations: iterations.strip_prefix("i=").unwrap().parse().unwrap(),
            message,
        }
    }
}

/// A line of a password file.
pub fn verifier_line(user: &str, password: &str) -> String {
    let salt = unique("salt of a test");
    let keys = Keys::of(password, salt.as_bytes(), ITERATIONS);
    let [salt, stored, server] =
        [salt.as_bytes(), &Sha256::digest(keys.client), &keys.server].map(|bytes| BASE64.encode(bytes));
    format!("{user}:$scram-sha-256$i={ITERATIONS}${salt}${stored}${server}\n")
}

struct Keys {
    client: [u8; 32],
    server: [u8; 32],
}

impl Keys {
    fn of(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
        Self { client: hmac(&salted, b"Client Key"), server: hmac(&salted, b"Server Key") }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes().into()
}
