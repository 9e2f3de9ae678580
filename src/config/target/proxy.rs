//! `proxy` of a target: who makes its connections.

use http::Uri;
use http::uri::{Authority, Scheme};
use percent_encoding::percent_decode_str;
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::secret::{self, Secret};
use crate::config::values;

/// A proxy that connections to a target go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// How it is asked for a connection.
    pub kind: ProxyKind,
    /// Where it is: host and port, without user and password; `https` when it is spoken with over TLS.
    pub uri: Uri,
    /// User name and password, where it wants to know them.
    pub login: Option<Login>,
}

/// How a proxy is asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// With the CONNECT method of HTTP, whatever the target speaks.
    Http,
    /// With SOCKS 5. The proxy looks names up.
    Socks5,
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

const EXAMPLE: &str = "write \"http://proxy.example:3128\", \"socks5://proxy.example:1080\", or with a login \
                       \"http://user:${env:PROXY_PASSWORD}@proxy.example:3128\"";

/// `"http://user:password@host:3128"`. What it holds is never repeated: there may be a password in it.
pub(super) fn parse(value: &DeValue<'_>) -> Result<ProxyConfig, Wrong> {
    let text = value.as_str().ok_or_else(|| values::unexpected("a URL in quotes", value).help(EXAMPLE))?;
    let wrong = |what: &str| Wrong::new(what).help(EXAMPLE).secret();
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("must be a URL with a scheme"))?;
    let (kind, scheme, port) = match scheme {
        "http" => (ProxyKind::Http, Scheme::HTTP, 3128),
        "https" => (ProxyKind::Http, Scheme::HTTPS, 443),
        "socks5" | "socks5h" => (ProxyKind::Socks5, Scheme::HTTP, 1080),
        _ => return Err(wrong("must be an http, https or socks5 URL")),
    };
    let (login, at) = match rest.rsplit_once('@') {
        Some((login, at)) => (Some(read_login(login)?), at),
        None => (None, rest),
    };
    let at: Authority = at
        .trim_end_matches('/')
        .parse()
        .ok()
        .filter(|at: &Authority| {
            !at.host().is_empty() && (at.as_str() == at.host() || at.port_u16().is_some())
        })
        .ok_or_else(|| wrong("must be a URL of a host and a port, without a path"))?;
    let at = if at.port_u16().is_some() { at.to_string() } else { format!("{at}:{port}") };
    let uri = Uri::builder().scheme(scheme).authority(at).path_and_query("/").build();
    Ok(ProxyConfig { kind, uri: uri.map_err(|_| wrong("must be a URL of a host and a port"))?, login })
}

/// References are resolved after the parts are told apart, so that a secret may have any character. What stands
/// in the file itself is percent-decoded, as in any URL.
fn read_login(login: &str) -> Result<Login, Wrong> {
    // A reference has a ":" of its own.
    let reference = if login.starts_with("${") { login.find('}').unwrap_or(0) } else { 0 };
    let (start, rest) = login.split_at(reference);
    let (end, password) = rest.split_once(':').unwrap_or((rest, ""));
    let user = format!("{start}{end}");
    let part = |text: &str| -> Result<String, Wrong> {
        if text.contains("${") {
            return secret::resolve(text);
        }
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(Into::into).map_err(|_| Wrong::new("has a login that is not UTF-8").secret())
    };
    let (user, password) = (part(&user)?, part(password)?);
    // The limits of SOCKS 5 (RFC 1929).
    if user.contains(':') || user.len() > 255 || password.len() > 255 {
        let wrong =
            Wrong::new("has a login that cannot be sent: 255 bytes each, and no \":\" in the user name");
        return Err(wrong.secret());
    }
    Ok(Login { user, password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ProxyConfig, Wrong> {
        parse(&DeValue::String(text.into()))
    }

    #[test]
    fn proxies() {
        let proxy = read("http://proxy.example").unwrap();
        assert_eq!(
            (proxy.kind, proxy.uri.to_string().as_str()),
            (ProxyKind::Http, "http://proxy.example:3128/")
        );
        assert_eq!(proxy.login, None);
        assert_eq!(read("https://h").unwrap().uri.to_string(), "https://h:443/");
        let proxy = read("socks5://[::1]:9/").unwrap();
        assert_eq!((proxy.kind, proxy.uri.to_string().as_str()), (ProxyKind::Socks5, "http://[::1]:9/"));
        let login = read("http://us%20er:p%40ss:w@h:1").unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("us er", "p@ss:w"));
        let login = read("http://user@h:1").unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("user", ""));
        let path = std::env::var("PATH").unwrap();
        let login = read("http://user:${env:PATH}@h:1").unwrap().login;
        assert_eq!(login.unwrap().password.expose(), path.as_str());
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_repeated() {
        for text in ["h:3128", "ftp://u:hunter2@h", "http://", "http://u:hunter2@", "http://u:hunter2@h:x/p"]
        {
            let wrong = read(text).unwrap_err();
            assert!(!wrong.message.contains("hunter2"), "{}", wrong.message);
        }
        assert!(!format!("{:?}", read("http://u:hunter2@h").unwrap()).contains("hunter2"));
    }
}
