//! The messages of SCRAM-SHA-256 (RFC 5802, section 7), the server's side.
//!
//! Channel binding is not offered: TLS may end at a proxy, and MQTT has no name for it. A client may say that
//! it could have (`y`), not that it wants it (`p=`).
//!
//! Invariant: a message is at most [`MESSAGE_BYTES_MAX`] long, and nothing in it can make this panic.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use super::scram_verifier::{Key, ScramVerifier, prepare};

/// Longest message of a client. Each exchange under way holds one.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Why an exchange was refused, for the log: the client is told that it is not authorized, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScramError(pub &'static str);

/// What the client has begun with.
#[derive(Debug)]
pub(super) struct ClientFirst<'a> {
    /// The user name, prepared.
    pub(super) user: Box<str>,
    /// What the client says about channel binding, and for whom it wants to act.
    gs2_header: &'a str,
    /// The rest of the message, which both sides sign.
    bare: &'a str,
    nonce: &'a str,
}

/// An exchange that waits for the client's proof.
pub(super) struct Challenge {
    pub(super) user: Box<str>,
    verifier: Arc<ScramVerifier>,
    /// False for a user who cannot log in this way, and is not to find out sooner than others.
    is_known: bool,
    gs2_header: Box<str>,
    nonce: Box<str>,
    /// The first two messages, which both sides sign.
    signed: String,
}

impl<'a> ClientFirst<'a> {
    /// Reads `n,,n=USER,r=NONCE`.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        let malformed = ScramError("the client's first message is not `n,,n=USER,r=NONCE`");
        let (flag, rest) = message.split_once(',').ok_or(malformed)?;
        match flag {
            "n" | "y" => {}
            flag if flag.starts_with("p=") => return Err(ScramError("channel binding is not offered")),
            _ => return Err(malformed),
        }
        let (acts_as, bare) = rest.split_once(',').ok_or(malformed)?;
        let mut fields = bare.split(',');
        let mut field = |name| fields.next().and_then(|field: &str| field.strip_prefix(name));
        if bare.starts_with("m=") {
            return Err(ScramError("the client asks for an extension that is not known"));
        }
        let name = field("n=").ok_or(malformed)?;
        let nonce = field("r=").filter(|nonce| is_nonce(nonce)).ok_or(malformed)?;
        if !acts_as.is_empty() && acts_as.strip_prefix("a=") != Some(name) {
            return Err(ScramError("the client asks to act as another user"));
        }
        let name = unescaped(name).ok_or(malformed)?;
        let user = prepare(&name).filter(|user| !user.is_empty());
        let user = user.ok_or(ScramError("the user name holds what SASLprep forbids"))?.into();
        let gs2_header = message.strip_suffix(bare).unwrap_or_default();
        Ok(Self { user, gs2_header, bare, nonce })
    }

    /// Challenges the client, and gives the message that does so. `server_nonce` has to be new and not to be
    /// guessed.
    pub(super) fn challenge(
        self,
        verifier: Arc<ScramVerifier>,
        is_known: bool,
        server_nonce: &str,
    ) -> (Challenge, String) {
        let nonce = [self.nonce, server_nonce].concat();
        let salt = BASE64.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let signed = [self.bare, ",", &message].concat();
        let (gs2_header, nonce) = (self.gs2_header.into(), nonce.into());
        (Challenge { user: self.user, verifier, is_known, gs2_header, nonce, signed }, message)
    }
}

impl Challenge {
    /// Judges `c=HEADER,r=NONCE,p=PROOF`. Gives the verifier that the client has met, and the message that shows
    /// the client that we have it.
    pub(super) fn conclude(self, message: &[u8]) -> Result<(Arc<ScramVerifier>, String), ScramError> {
        let malformed = ScramError("the client's last message is not `c=HEADER,r=NONCE,p=PROOF`");
        let (unproven, proof) = text(message)?.rsplit_once(",p=").ok_or(malformed)?;
        let proof = BASE64.decode(proof).ok().and_then(|proof| Key::try_from(proof).ok()).ok_or(malformed)?;
        let mut fields = unproven.split(',');
        let mut field =
            |name| fields.next().and_then(|field: &str| field.strip_prefix(name)).ok_or(malformed);
        let (header, nonce) = (BASE64.decode(field("c=")?).map_err(|_| malformed)?, field("r=")?);
        if header != self.gs2_header.as_bytes() {
            return Err(ScramError("the client's messages differ in what they say about channel binding"));
        }
        if *nonce != *self.nonce {
            return Err(ScramError("the nonce is not the one of this exchange"));
        }
        let auth_message = [&self.signed, ",", unproven].concat();
        // Both are looked at, so that a user who is not known takes no less time.
        if !self.verifier.proves(&proof, &auth_message) | !self.is_known {
            return Err(ScramError("the user is not known, or the password is wrong"));
        }
        let signature = BASE64.encode(self.verifier.signature(&auth_message));
        Ok((self.verifier, format!("v={signature}")))
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError("a message has more than 1024 bytes"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError("a message is not UTF-8 text"))
}

/// Printable ASCII; commas are gone already.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A user name with `=2C` for a comma and `=3D` for an equals sign; no other use of the sign is right.
fn unescaped(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains('=') {
        return Some(name.into());
    }
    let mut pieces = name.split('=');
    let mut unescaped = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        unescaped.push(sign);
        unescaped.push_str(rest);
    }
    Some(unescaped.into())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::auth::scram_verifier::SCRAM_ITERATIONS_MIN;

    // The example in section 3 of RFC 7677.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn challenge(first: &str, is_known: bool) -> (Challenge, String) {
        static PENCIL: LazyLock<Arc<ScramVerifier>> = LazyLock::new(|| {
            let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
            Arc::new(ScramVerifier::derive(b"pencil", &salt, SCRAM_ITERATIONS_MIN))
        });
        let first = ClientFirst::parse(first.as_bytes()).unwrap();
        first.challenge(Arc::clone(&PENCIL), is_known, SERVER_NONCE)
    }

    fn refused(first: &str) -> &'static str {
        ClientFirst::parse(first.as_bytes()).unwrap_err().0
    }

    fn refused_at_last(last: &str) -> &'static str {
        challenge(FIRST, true).0.conclude(last.as_bytes()).err().unwrap().0
    }

    #[test]
    fn the_example_of_the_rfc() {
        let (waiting, message) = challenge(FIRST, true);
        assert_eq!(message, SERVER_FIRST);
        assert_eq!(&*waiting.user, "user");
        let Ok((_, message)) = waiting.conclude(FINAL.as_bytes()) else { panic!() };
        assert_eq!(message, SERVER_FINAL);
    }

    #[test]
    fn a_wrong_proof_and_an_unknown_user_are_told_the_same() {
        let wrong = refused_at_last(&FINAL.replace("p=dHzb", "p=dHzc"));
        let unknown = challenge(FIRST, false).0.conclude(FINAL.as_bytes()).err().unwrap().0;
        assert_eq!(wrong, unknown);
    }

    #[test]
    fn user_names_are_unescaped_and_prepared() {
        let user = |name: &str| {
            ClientFirst::parse(format!("y,,n={name},r=x,ext=1").as_bytes())
                .map(|first| first.user.to_string())
        };
        assert_eq!(user("a=2Cb=3Dc"), Ok("a,b=c".into()));
        assert_eq!(user("=3D"), Ok("=".into()));
        assert_eq!(user("\u{2168}"), Ok("IX".into()));
        for name in ["", "=", "a=2c", "a=", "a=2", "=3E", "\u{7}", "\u{ad}"] {
            assert!(user(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn channel_binding_other_identities_and_extensions_are_refused() {
        assert!(refused(&FIRST.replace("n,,", "p=tls-unique,,")).contains("channel binding"));
        assert!(refused(&FIRST.replace("n,,", "n,a=admin,")).contains("another user"));
        assert!(refused(&FIRST.replace("n,,", "n,,m=x,")).contains("extension"));
        assert!(ClientFirst::parse(FIRST.replace("n,,", "n,a=user,").as_bytes()).is_ok());
    }

    #[test]
    fn what_was_begun_with_has_to_be_confirmed() {
        assert!(refused_at_last(&FINAL.replace("c=biws", "c=eSws")).contains("channel binding"));
        assert!(refused_at_last(&FINAL.replace("$k0", "$k1")).contains("nonce"));
        assert!(refused_at_last(&FINAL.replace("r=rOprNGfwEbeRWgbNEkqO%", "r=%")).contains("nonce"));
        // An extension is part of what is signed.
        assert!(refused_at_last(&FINAL.replace(",p=", ",x=1,p=")).contains("password"));
    }

    #[test]
    fn no_message_makes_it_panic() {
        for (whole, is_first) in [(FIRST, true), (FINAL, false)] {
            for at in 0..whole.len() {
                for byte in [0, b',', b'=', 0x80, 0xFF] {
                    let mut changed = whole.as_bytes().to_vec();
                    changed[at] = byte;
                    for message in [&changed[..], &changed[..at], &changed[at..]] {
                        let refused = match is_first {
                            true => ClientFirst::parse(message).is_err(),
                            false => challenge(FIRST, true).0.conclude(message).is_err(),
                        };
                        assert!(refused || is_first || message == whole.as_bytes(), "{message:?}");
                    }
                }
            }
        }
        for first in
            ["", ",", "n", "n,", "n,,", "n,,n=a", "n,,n=a,r=", "n,,r=x,n=a", "x,,n=a,r=x", "n,,n=a,r=\u{e9}"]
        {
            refused(first);
        }
        let long = format!("n,,n={},r=x", "a".repeat(MESSAGE_BYTES_MAX));
        assert!(refused(&long).contains("1024"));
    }
}
