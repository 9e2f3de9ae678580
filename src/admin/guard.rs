//! Which requests are answered at all: those from this machine, and not from some web page.
//!
//! A page from elsewhere can make a browser on this machine send requests here. When it lets its own name
//! point to 127.0.0.1 (DNS rebinding), the Host header carries that name; when it posts across sites, the
//! Origin header does.

use std::net::IpAddr;

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, Method, StatusCode, header, uri::Authority};

use super::ApiError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn check(request: Request, next: Next) -> Result<Response, ApiError> {
    check_host(&request)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        check_origin(request.headers())?;
    }
    Ok(next.run(request).await)
}

fn check_host(request: &Request) -> Result<(), ApiError> {
    // Both are looked at: which of the two counts is not always read the same way.
    let target = request.uri().authority();
    let host = single(request.headers(), &header::HOST).and_then(|host| host.parse::<Authority>().ok());
    let good = |authority: &Authority| is_loopback(authority.host());
    if host.as_ref().is_some_and(good) && target.is_none_or(good) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "the Host header does not name this machine").help(
        "ask for http://127.0.0.1, http://[::1] or http://localhost with the port; a proxy in front has to \
         set the Host header so",
    ))
}

fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let site = single(headers, &SEC_FETCH_SITE);
    let same_site = !headers.contains_key(SEC_FETCH_SITE) || matches!(site, Some("same-origin" | "none"));
    let same_origin = !headers.contains_key(header::ORIGIN) || is_same_origin(headers);
    if same_site && same_origin {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "a web page from elsewhere may not change anything here")
        .help("use the command line, or send the request without an Origin header"))
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let origin = single(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    let host = single(headers, &header::HOST);
    origin.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

/// The value of a header that is there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str) -> bool {
        let request = Request::builder().uri("/").header("host", host).body(Default::default()).unwrap();
        check_host(&request).is_ok()
    }

    #[test]
    fn only_loopback_hosts_are_answered() {
        for good in ["127.0.0.1", "127.0.0.1:9883", "127.8.9.10", "[::1]:9883", "localhost:1", "LocalHost"] {
            assert!(host(good), "{good}");
        }
        let evil = ["evil.example:9883", "127.0.0.1.evil.example", "192.168.0.4", "[::2]", "::1", "", "a b"];
        for bad in evil.into_iter().chain(["localhost.evil.example", "0.0.0.0:9883"]) {
            assert!(!host(bad), "{bad}");
        }
    }

    #[test]
    fn a_target_or_a_second_host_cannot_smuggle_a_name_in() {
        let build = |uri: &str, hosts: &[&str]| {
            let request = Request::builder().uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.header("host", *host));
            check_host(&request.body(Default::default()).unwrap()).is_ok()
        };
        assert!(build("http://localhost:1/", &["localhost:1"]));
        assert!(!build("http://evil.example/", &["localhost:1"]));
        assert!(!build("/", &["localhost:1", "evil.example"]));
        assert!(!build("/", &[]));
    }

    #[test]
    fn a_page_from_elsewhere_changes_nothing() {
        let allowed = |pairs: &[(&'static str, &'static str)]| {
            let host = [("host", "localhost:9883")];
            let pairs = host.iter().chain(pairs);
            let headers: HeaderMap = pairs
                .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
                .collect();
            check_origin(&headers).is_ok()
        };
        assert!(allowed(&[]));
        assert!(allowed(&[("origin", "http://localhost:9883")]));
        assert!(allowed(&[("origin", "http://localhost:9883"), ("sec-fetch-site", "same-origin")]));
        for origin in ["null", "http://evil.example", "http://localhost:1", "https://localhost:9883", ""] {
            assert!(!allowed(&[("origin", origin)]), "{origin}");
        }
        assert!(!allowed(&[("sec-fetch-site", "cross-site")]));
        assert!(!allowed(&[("sec-fetch-site", "same-site")]));
    }
}
