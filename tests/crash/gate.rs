//! Where the clients of a test wait while the broker is down.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Long enough for a busy machine: no test waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Open while the broker runs. It knows when every client has noticed that it does not.
#[derive(Default)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    address: Option<SocketAddr>,
    winding_up: bool,
    over: bool,
    clients: usize,
    waiting: usize,
}

/// A client's place at the gate. It is given back when the client ends, also when it panics.
pub struct Seat(Arc<Gate>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.inner.lock().unwrap().clients -= 1;
        self.0.changed.notify_all();
    }
}

impl Gate {
    pub fn open(&self, address: SocketAddr) {
        self.inner.lock().unwrap().address = Some(address);
        self.changed.notify_all();
    }

    pub fn close(&self) {
        self.inner.lock().unwrap().address = None;
    }

    /// No new messages from now on: what is open is finished.
    pub fn wind_up(&self) {
        self.inner.lock().unwrap().winding_up = true;
    }

    pub fn is_winding_up(&self) -> bool {
        self.inner.lock().unwrap().winding_up
    }

    /// No client goes in any more.
    pub fn end(&self) {
        self.inner.lock().unwrap().over = true;
        self.changed.notify_all();
    }

    pub fn is_over(&self) -> bool {
        self.inner.lock().unwrap().over
    }

    /// Counts a client in, until it drops its seat.
    pub fn join(self: &Arc<Self>) -> Seat {
        self.inner.lock().unwrap().clients += 1;
        Seat(Arc::clone(self))
    }

    /// Waits until the broker runs; `None` when it is all over.
    pub fn enter(&self) -> Option<SocketAddr> {
        let mut inner = self.inner.lock().unwrap();
        inner.waiting += 1;
        self.changed.notify_all();
        while inner.address.is_none() && !inner.over {
            inner = self.changed.wait(inner).unwrap();
        }
        inner.waiting -= 1;
        inner.address.filter(|_| !inner.over)
    }

    /// Waits until every client waits: what the old broker has said to them is read.
    pub fn all_wait(&self) {
        self.wait_until("every client waits", |inner| inner.waiting == inner.clients);
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Inner) -> bool) {
        let inner = self.inner.lock().unwrap();
        let waited = self.changed.wait_timeout_while(inner, PATIENCE, |inner| !condition(inner)).unwrap().1;
        assert!(!waited.timed_out(), "not within {PATIENCE:?}: {what}");
    }
}
