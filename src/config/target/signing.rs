//! `[targets.NAME.signing]`: keys that requests are signed with, as Standard Webhooks has it.

use std::fmt;
use std::ops::RangeInclusive;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::{secret, values};

/// The old one, the new one, and as many of another kind.
const KEYS_MAX: usize = 4;
/// Bytes of a key for HMAC-SHA256.
const HMAC_KEY_LEN: RangeInclusive<usize> = 24..=64;
const HELP: &str =
    "write \"${env:NAME}\" with whsec_ and 24 to 64 bytes in base64 in it, or whsk_ and an ed25519 key";

/// A key, and so the kind of signature. Neither its text nor its bytes are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// `whsec_`: HMAC-SHA256 with these bytes, the signature `v1`.
    Hmac(Box<[u8]>),
    /// `whsk_`: ed25519 with this seed, the signature `v1a`.
    Ed25519(Box<[u8]>),
}

impl SigningKey {
    /// Reads the section: the keys that each request is signed with, in this order.
    pub(super) fn read(section: &mut Section<'_>) -> Vec<Self> {
        let keys = section.require_list("keys", "[\"${env:SIGNING_KEY}\"]", key);
        if let Some(further) = keys.get(KEYS_MAX) {
            section.wrong_at("keys", further.span(), Wrong::new(format!("has more than {KEYS_MAX} keys")));
        }
        keys.into_iter().map(toml::Spanned::into_inner).collect()
    }

    /// The key that this text stands for.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| "is not base64 after its prefix");
        if let Some(text) = text.strip_prefix("whsec_") {
            let key = decode(text)?;
            if !HMAC_KEY_LEN.contains(&key.len()) {
                return Err("does not have 24 to 64 bytes");
            }
            return Ok(Self::Hmac(key.into()));
        }
        let Some(text) = text.strip_prefix("whsk_") else {
            return Err("begins neither with whsec_ nor with whsk_");
        };
        let key = decode(text)?;
        // With or without the public key behind it.
        let pair = match key.split_at_checked(32) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err("is not an ed25519 key"),
        };
        pair.map_err(|_| "is not an ed25519 key, or not with its own public key")?;
        Ok(Self::Ed25519(key.into_iter().take(32).collect()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hmac(_) => "whsec_***",
            Self::Ed25519(_) => "whsk_***",
        })
    }
}

fn key(value: &DeValue<'_>) -> Result<SigningKey, Wrong> {
    let text = value.as_str().ok_or_else(|| values::unexpected("a key in quotes", value))?;
    let resolved = secret::resolve(text)?;
    SigningKey::parse(&resolved)
        .map_err(|why| Wrong::new(format!("has a key that {why}")).help(HELP).secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_never_shown() {
        let hmac = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{hmac:?}"), "whsec_***");
        let seed = [7; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        use aws_lc_rs::signature::KeyPair;
        let whole = [&seed, pair.public_key().as_ref()].concat();
        let key = |bytes: &[u8]| SigningKey::parse(&format!("whsk_{}", BASE64_STANDARD.encode(bytes)));
        assert_eq!(key(&seed), key(&whole));
        assert_eq!(format!("{:?}", key(&seed)), "Ok(whsk_***)");
        for wrong in [&[7; 31][..], &[7; 64], &[7; 33]] {
            assert!(key(wrong).is_err(), "{}", wrong.len());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "secret", "whsec_", "whsec_%%%", "whsec_AAAA", "whpk_AAAA", "whsk_"] {
            assert!(SigningKey::parse(text).is_err(), "{text}");
        }
    }
}
