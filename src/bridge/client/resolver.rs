//! Looks names up, and lets through only the addresses that may be connected to.
//!
//! One name is looked up at a time, whoever asks: a resolver that hangs holds one thread for each target, and not
//! one for each attempt.
//!
//! Invariant: what a connection is made to is what was judged; no name is looked up a second time in between.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tower_service::Service;

use super::failure::Failure;
use crate::config::{Addresses, Said};

/// How a name becomes addresses. Blocks.
pub(super) type LookUp = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Addresses of a refused name that a message shows.
const SHOWN_MAX: usize = 4;

/// Resolves the names of one target.
#[derive(Clone)]
pub(super) struct Resolver {
    look_up: LookUp,
    addresses: Arc<Addresses>,
    /// Who says where the names lead, `localhost` aside.
    said: Said,
    last: Arc<Mutex<Option<Found>>>,
}

/// What a lookup brought.
struct Found {
    name: Box<str>,
    at: Instant,
    addresses: Result<Vec<IpAddr>, String>,
}

impl Resolver {
    pub(super) fn new(look_up: LookUp, addresses: Arc<Addresses>, said: Said) -> Self {
        Self { look_up, addresses, said, last: Arc::default() }
    }

    async fn resolve(self, name: &str) -> Result<std::vec::IntoIter<SocketAddr>, Failure> {
        let found = self.found(name).await;
        let found = found.map_err(|error| Failure::Connect(format!("{name} cannot be resolved: {error}")))?;
        let said = if is_localhost(name) && self.said == Said::Name { Said::Localhost } else { self.said };
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        for address in found {
            match self.addresses.judge(address, said) {
                Ok(()) => allowed.push(SocketAddr::new(address, 0)),
                Err(why) => refused.push(why),
            }
        }
        match refused.first() {
            _ if !allowed.is_empty() => Ok(allowed.into_iter()),
            None => Err(Failure::Connect(format!("{name} has no address"))),
            Some(first) => {
                let shown: Vec<_> = refused.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
                let (shown, remedy) = (shown.join(", "), first.remedy());
                Err(Failure::Refused(format!(
                    "{name} leads to {shown}; if it is meant to, add {remedy} to the target"
                )))
            }
        }
    }

    /// Whoever asks while the same name is looked up gets what is found then. The lookup goes on when nobody waits
    /// for it any more, and the next one waits for it.
    async fn found(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let asked_at = Instant::now();
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some(found) = last.as_ref().filter(|found| found.at >= asked_at && *found.name == *name) {
            return found.addresses.clone();
        }
        let (look_up, name) = (Arc::clone(&self.look_up), Box::<str>::from(name));
        let looked_up = spawn_blocking(move || {
            let addresses = look_up(&name).map_err(|error| error.to_string());
            *last = Some(Found { name, at: Instant::now(), addresses: addresses.clone() });
            addresses
        });
        looked_up.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.resolve(name.as_str()).await })
    }
}

/// As the operating system does it.
pub(super) fn look_up_by_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// The name that RFC 6761 keeps for this machine.
fn is_localhost(name: &str) -> bool {
    name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn resolver(found: &'static [&'static str], listed: &[&str], said: Said) -> Resolver {
        let look_up = move |_: &str| Ok(found.iter().map(|address| address.parse().unwrap()).collect());
        let listed = listed.iter().map(|network| network.parse().unwrap()).collect();
        Resolver::new(Arc::new(look_up), Arc::new(Addresses { listed }), said)
    }

    async fn resolve(resolver: Resolver, name: &str) -> Result<Vec<String>, Failure> {
        let addresses = resolver.resolve(name).await?;
        Ok(addresses.map(|address| address.ip().to_string()).collect())
    }

    #[tokio::test]
    async fn a_name_leads_nowhere_inside_unless_that_is_listed() {
        for address in [&["127.0.0.1"], &["10.0.0.1"], &["169.254.169.254"], &["::1"], &["fd00::1"]] {
            let refused = resolve(resolver(address, &[], Said::Name), "shore.example").await.unwrap_err();
            assert_eq!(refused.kind(), "refused", "{address:?}");
        }
        let listed = resolver(&["10.0.0.1"], &["10.0.0.0/24"], Said::Name);
        assert_eq!(resolve(listed, "shore.example").await.unwrap(), ["10.0.0.1"]);
    }

    #[tokio::test]
    async fn a_refusal_says_what_led_where_and_what_would_allow_it() {
        let rebound = resolver(&["10.1.2.3", "127.0.0.1"], &[], Said::Name);
        let said = resolve(rebound, "shore.example").await.unwrap_err().to_string();
        let expected = "not connected: shore.example leads to 10.1.2.3 (an address of a private network), 127.0.0.1 \
                        (this machine itself); if it is meant to, add addresses = [\"10.0.0.0/8\"] to the target";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn what_is_refused_is_left_out() {
        let mixed = resolver(&["127.0.0.1", "192.0.2.1", "8.8.8.8", "2606:4700::1"], &[], Said::Name);
        assert_eq!(resolve(mixed, "shore.example").await.unwrap(), ["8.8.8.8", "2606:4700::1"]);
        let nothing = resolve(resolver(&[], &[], Said::Name), "shore.example").await.unwrap_err();
        assert_eq!(nothing, Failure::Connect("shore.example has no address".into()));
    }

    #[tokio::test]
    async fn localhost_is_this_machine_and_nothing_else() {
        for name in ["localhost", "LOCALHOST", "localhost."] {
            let here = resolver(&["127.0.0.1", "::1", "10.0.0.1"], &[], Said::Name);
            assert_eq!(resolve(here, name).await.unwrap(), ["127.0.0.1", "::1"], "{name}");
        }
        let here = resolver(&["127.0.0.1"], &[], Said::Name);
        assert!(resolve(here, "localhost.example").await.is_err());
    }

    #[tokio::test]
    async fn the_name_of_a_proxy_may_lead_inside_but_not_to_metadata() {
        let inside = resolver(&["10.0.0.1"], &[], Said::Configured);
        assert_eq!(resolve(inside, "proxy.example").await.unwrap(), ["10.0.0.1"]);
        assert!(
            resolve(resolver(&["169.254.169.254"], &[], Said::Configured), "proxy.example").await.is_err()
        );
    }

    #[tokio::test]
    async fn one_lookup_at_a_time_is_for_all_who_wait_for_it() {
        let (release, released) = mpsc::channel::<()>();
        let (count, released) = (Arc::new(AtomicUsize::new(0)), parking_lot::Mutex::new(released));
        let counted = Arc::clone(&count);
        let look_up = move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = released.lock().recv();
            Ok(vec![IpAddr::from([8, 8, 8, 8])])
        };
        let resolver = Resolver::new(Arc::new(look_up), Arc::default(), Said::Name);
        let ask = || tokio::spawn(resolver.clone().ask());
        let first: Vec<_> = (0..8).map(|_| ask()).collect();
        while count.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // Nobody waits for the first lookup any more, and still there is no second beside it.
        first[0].abort();
        tokio::task::yield_now().await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        release.send(()).unwrap();
        for waiting in first.into_iter().skip(1) {
            assert!(waiting.await.unwrap().is_ok());
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "all got what the first lookup found");
        release.send(()).unwrap();
        assert!(ask().await.unwrap().is_ok());
        assert_eq!(count.load(Ordering::SeqCst), 2, "nothing is remembered for later");
    }

    impl Resolver {
        async fn ask(self) -> Result<std::vec::IntoIter<SocketAddr>, Failure> {
            self.resolve("shore.example").await
        }
    }
}
