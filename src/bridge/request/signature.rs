//! Signatures of requests, as Standard Webhooks has them: one for each key, so that a target can change its key
//! while messages are on their way.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::Sha256;

use crate::config::SigningKey;

/// The keys of a target.
#[derive(Debug)]
pub(super) struct Signer(Vec<Key>);

enum Key {
    Hmac(Hmac<Sha256>),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// `None` without a key. A checked configuration has none that cannot be used.
    pub(super) fn new(keys: &[SigningKey]) -> Option<Self> {
        let keys = keys.iter().filter_map(|key| match key {
            SigningKey::Hmac(secret) => Hmac::new_from_slice(secret).ok().map(Key::Hmac),
            SigningKey::Ed25519(seed) => Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Key::Ed25519),
        });
        let keys: Vec<_> = keys.collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The header `webhook-signature` of a request with this id, time (seconds since 1970) and body.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> Option<HeaderValue> {
        let head = format!("{id}.{seconds}.");
        let signatures: Vec<_> = self.0.iter().map(|key| key.sign(head.as_bytes(), body)).collect();
        let mut header = HeaderValue::try_from(signatures.join(" ")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl Key {
    fn sign(&self, head: &[u8], body: &[u8]) -> String {
        match self {
            Self::Hmac(mac) => {
                let mac = mac.clone().chain_update(head).chain_update(body);
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            }
            Self::Ed25519(key) => format!("v1a,{}", BASE64_STANDARD.encode(key.sign(&[head, body].concat()))),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
