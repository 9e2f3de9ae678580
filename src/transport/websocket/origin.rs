//! Which web pages may connect.
//!
//! A browser lets every page open a WebSocket to every host, and says in `Origin` which page it is. Without a
//! check any page in the world could talk to a broker in its visitor's network.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header, uri::Authority};

/// Whether the page that a request comes from may connect; what is no browser names no page. One from the host
/// that it connects to may, where nobody can pretend to be that host: a name can be made to mean any address by
/// whoever owns it, an address or `localhost` cannot.
pub(super) fn is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let host = headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let Ok(origin) = origin.to_str() else { return false };
        allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
            || host.as_ref().is_some_and(|host| is_at_host(origin, host.host()))
    })
}

fn is_at_host(origin: &str, host: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let here = origin.host().and_then(address);
    here.is_some() && here == address(host)
}

/// The address that a host is for certain; all names of this machine for itself are one.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let here = IpAddr::from([127, 0, 0, 1]);
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(if address.is_loopback() { here } else { address }),
        Err(_) => bare.eq_ignore_ascii_case("localhost").then_some(here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, host: &str, list: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        is_allowed(&headers, &list.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_names_no_page_may_connect() {
        assert!(is_allowed(&HeaderMap::new(), &[]));
    }

    #[test]
    fn a_page_of_the_same_address_may_connect_and_one_of_the_same_name_may_not() {
        for (origin, host) in [
            ("http://localhost:3000", "localhost:8083"),
            ("http://LOCALHOST", "127.0.0.1:8083"),
            ("https://127.0.0.1:3000", "[::1]:8083"),
            ("http://192.0.2.7", "192.0.2.7:8083"),
            ("http://[2001:db8::1]:8080", "[2001:db8::1]:8083"),
        ] {
            assert!(allowed(origin, host, &[]), "{origin} at {host}");
        }
        for (origin, host) in [
            // Whoever owns the name can let it point to this machine.
            ("http://evil.example", "evil.example:8083"),
            ("http://evil.example", "localhost:8083"),
            ("http://localhost.evil.example", "localhost:8083"),
            ("http://192.0.2.8", "192.0.2.7:8083"),
            ("http://localhost", "192.0.2.7"),
            ("null", "localhost"),
            ("file://", "localhost"),
            ("", "localhost"),
            ("http://", ""),
            ("http://localhost@evil.example", "localhost"),
        ] {
            assert!(!allowed(origin, host, &[]), "{origin} at {host}");
        }
    }

    #[test]
    fn the_list_adds_pages_exactly_as_they_are_written() {
        let list = ["https://app.example", "null"];
        for origin in ["https://app.example", "HTTPS://App.Example", "null"] {
            assert!(allowed(origin, "broker.example", &list), "{origin}");
        }
        for origin in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "https://x",
        ] {
            assert!(!allowed(origin, "broker.example", &list), "{origin}");
        }
        assert!(allowed("http://anywhere.example", "broker.example", &["*"]));
    }

    #[test]
    fn of_two_pages_both_have_to_be_allowed() {
        let mut headers = HeaderMap::new();
        headers.append(header::ORIGIN, "http://localhost".parse().unwrap());
        headers.append(header::ORIGIN, "http://evil.example".parse().unwrap());
        headers.insert(header::HOST, "localhost".parse().unwrap());
        assert!(!is_allowed(&headers, &[]));
    }
}
