//! Why an attempt brought no answer, sorted by where it failed and told for people.

use std::{error::Error, io, time::Duration};

use tokio::time::error::Elapsed;

/// Any error, on its way to become a [`Failure`].
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why an attempt brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The name was not found, or nobody accepted the connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection would lead where no connection may be made to.
    #[error("not connected: {0}")]
    Refused(String),
    /// The proxy was not reached, or would not make the connection.
    #[error("no connection through the proxy: {0}")]
    Proxy(String),
    /// The handshake failed; mostly a certificate that is not trusted.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// There was no connection, TLS included, within this time.
    #[error("no connection within {}", humantime::format_duration(*.0))]
    ConnectTimeout(Duration),
    /// There was a connection but no answer within this time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// There is no access token to send the request with.
    #[error("no access token: {0}")]
    Token(String),
    /// The connection ended, or what came was not HTTP.
    #[error("the connection broke before an answer: {0}")]
    Broken(String),
}

impl Failure {
    /// Whether it will be the same until somebody has changed something: trying often does not help.
    pub fn stays_until_changed(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Refused(_))
    }

    /// Which failure it is, whatever the operating system says of it.
    #[cfg(test)]
    pub(in crate::bridge) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Refused(_) => "refused",
            Self::Proxy(_) => "proxy",
            Self::Token(_) => "token",
            Self::Tls(_) => "tls",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
        }
    }

    /// The failure behind an error of the connector, which has so much time.
    pub(super) fn from_connector(error: &(dyn Error + 'static), limit: Duration) -> Self {
        known(error).unwrap_or_else(|| {
            if has_elapsed(error) {
                Self::ConnectTimeout(limit)
            } else if chain(error).any(|cause| cause.is::<rustls::Error>()) {
                Self::Tls(describe(error))
            } else {
                Self::Connect(describe(error))
            }
        })
    }

    /// An error of a connection through a proxy, which says so unless it is known what it is.
    pub(super) fn from_proxy(error: impl Error + Send + Sync + 'static) -> BoxError {
        if known(&error).is_some() || has_elapsed(&error) {
            error.into()
        } else {
            Self::Proxy(describe(&error)).into()
        }
    }

    /// The failure behind an error of the HTTP client.
    pub(super) fn from_client(error: &(dyn Error + 'static)) -> Self {
        known(error).unwrap_or_else(|| Self::Broken(describe(error)))
    }
}

/// Whether it was the time that ended it.
fn has_elapsed(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<Elapsed>())
}

/// What was known already, and was passed on as the cause of another error.
fn known(error: &(dyn Error + 'static)) -> Option<Failure> {
    chain(error).find_map(|cause| cause.downcast_ref::<Failure>()).cloned()
}

/// The error and its causes. An [`io::Error`] hides the error it wraps from `source`, so it is opened.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// The causes from the outside in, each said once. The last is what a person needs most.
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        if parts.last().is_none_or(|last| *last != text) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn an_error_is_found_inside_of_io_errors() {
        let refused = rustls::Error::General("no".into());
        let nested = io::Error::other(io::Error::other(refused));
        assert_eq!(Failure::from_connector(&nested, LIMIT).kind(), "tls");
        let plain = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Failure::from_connector(&plain, LIMIT), Failure::Connect("connection refused".into()));
    }

    #[test]
    fn each_cause_is_said_once() {
        let nested = io::Error::other(io::Error::other("boom"));
        assert_eq!(describe(&nested), "boom");
    }

    #[test]
    fn a_message_says_how_long_was_waited() {
        assert_eq!(Failure::Timeout(Duration::from_millis(1500)).to_string(), "no answer within 1s 500ms");
    }
}
