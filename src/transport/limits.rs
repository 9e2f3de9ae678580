//! How many connections may be open at once.

use std::sync::Arc;

use rlimit::Resource;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts connections up to a limit. Clones count together.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    max: u32,
}

/// A place for one connection, in all limits that it was counted by. Dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPermit {
    _everywhere: OwnedSemaphorePermit,
    _at_listener: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    /// Allows so many connections.
    pub fn new(max: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// How many connections are counted at the moment.
    pub fn in_use(&self) -> u32 {
        self.max.saturating_sub(self.free.available_permits() as u32)
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }
}

impl ConnectionPermit {
    /// A place for one connection, if both limits have one.
    pub fn take(everywhere: &ConnectionLimit, at_listener: &ConnectionLimit) -> Option<Self> {
        Some(Self { _everywhere: everywhere.take()?, _at_listener: at_listener.take()? })
    }
}

/// Raises the number of files and sockets that the process may have open as far as it may itself, and
/// gives the number in force. A number that cannot be raised is not an error: it is given as it is, and 0
/// when it is not known.
pub fn raise_nofile() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).or_else(|_| Resource::NOFILE.get_soft()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_decides_and_places_come_back() {
        let (everywhere, here) = (ConnectionLimit::new(2), ConnectionLimit::new(1));
        let first = ConnectionPermit::take(&everywhere, &here).unwrap();
        assert!(ConnectionPermit::take(&everywhere, &here).is_none());
        assert_eq!((everywhere.in_use(), here.in_use()), (1, 1), "a refusal keeps no place");
        let elsewhere = ConnectionLimit::new(9);
        let second = ConnectionPermit::take(&everywhere, &elsewhere).unwrap();
        assert!(ConnectionPermit::take(&everywhere, &elsewhere).is_none());
        drop((first, second));
        assert_eq!((everywhere.in_use(), here.in_use(), elsewhere.in_use()), (0, 0, 0));
    }

    #[test]
    fn gives_the_number_of_files_in_force() {
        let raised = raise_nofile();
        assert!(raised >= 64, "{raised}");
        assert_eq!(raise_nofile(), raised);
    }
}
