//! Who a client is, and how its names are shown.

use std::{
    fmt::{self, Write},
    net::SocketAddr,
};

use super::credential::Credential;

/// Most characters of a client's name in a log line.
const SHOWN_CHARS_MAX: usize = 128;

/// Who a client is, as far as it has proved it. Shown, it is safe in a log.
#[derive(Clone)]
pub struct Identity {
    pub(super) user: Option<Box<str>>,
    pub(super) proof: Proof,
}

#[derive(Clone)]
pub(super) enum Proof {
    /// The password, or a proof that the client knows it, matched this.
    Password(Credential),
    /// None was asked for, at this listener.
    Nothing { listener: SocketAddr },
}

impl Identity {
    /// The user name of the CONNECT. Without a password file nobody has checked it.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The user name whose password was checked; only this one has rights.
    pub fn verified_user(&self) -> Option<&str> {
        match self.proof {
            Proof::Password(_) => self.user(),
            Proof::Nothing { .. } => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, &self.proof) {
            (None, _) => f.write_str("anonymous"),
            (Some(user), Proof::Password(_)) => Escaped(user).fmt(f),
            (Some(user), Proof::Nothing { .. }) => write!(f, "{} (not checked)", Escaped(user)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// Shows text that a client has chosen: control characters, quotes and marks that turn the direction of
/// writing are escaped, and a very long one is cut.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(SHOWN_CHARS_MAX) {
            char.escape_debug().try_for_each(|escaped| f.write_char(escaped))?;
        }
        match chars.next() {
            None => Ok(()),
            Some(_) => f.write_str("..."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_log_line() {
        assert_eq!(Escaped("ada\nuser=root").to_string(), "ada\\nuser=root");
        assert_eq!(Escaped("a\u{0}\u{1b}[31m").to_string(), "a\\0\\u{1b}[31m");
        assert_eq!(Escaped("a\u{202e}b\u{200f}").to_string(), "a\\u{202e}b\\u{200f}");
        assert_eq!(Escaped("Zoë 船").to_string(), "Zoë 船");
        assert_eq!(Escaped(&"x".repeat(60_000)).to_string().len(), SHOWN_CHARS_MAX + 3);
    }
}
