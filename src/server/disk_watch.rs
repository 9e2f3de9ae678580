//! Looks at the free space of the store's disk, so that publishes are refused before a commit fails.
//!
//! Invariant: the store is told of every change, and the log has one line for each.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytesize::ByteSize;
use tokio::time::MissedTickBehavior;

use crate::{store::Store, telemetry};

const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the store every second whether its disk has at least `free_min` bytes left, for as long as it is
/// polled. Once refused, publishes are taken again when there is a quarter more.
pub async fn watch(store: Store, folder: PathBuf, free_min: u64) {
    let folder: Arc<std::path::Path> = folder.into();
    let mut disk = Disk { free_min, state: State::Roomy };
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let looked_at = Arc::clone(&folder);
        // A network filesystem that has gone would block a worker thread.
        let free = tokio::task::spawn_blocking(move || telemetry::free_space(&looked_at)).await;
        let Ok(free) = free else { continue };
        if let Some(now) = disk.judge(&free) {
            tell(&store, now, &free, free_min);
        }
    }
}

/// What was seen last.
#[derive(Debug)]
struct Disk {
    free_min: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Roomy,
    Full,
    /// It could not be measured: what was true before stays in force.
    Unknown {
        full: bool,
    },
}

impl Disk {
    /// The new state, when it has changed.
    fn judge(&mut self, free: &io::Result<u64>) -> Option<State> {
        let full = match self.state {
            State::Roomy => false,
            State::Full => true,
            State::Unknown { full } => full,
        };
        let needed = if full { self.free_min.saturating_add(self.free_min / 4) } else { self.free_min };
        let state = match free {
            Err(_) => State::Unknown { full },
            Ok(free) if *free < needed => State::Full,
            Ok(_) => State::Roomy,
        };
        let changed = state != self.state;
        self.state = state;
        changed.then_some(state)
    }
}

fn tell(store: &Store, now: State, free: &io::Result<u64>, free_min: u64) {
    let shown = |bytes| ByteSize(bytes).display().iec();
    let (free_min, free) = (shown(free_min), free.as_ref().map(|free| shown(*free)));
    match (now, free) {
        (State::Full, Ok(free)) => {
            store.set_disk_full(true);
            tracing::error!(
                "the disk is nearly full: {free} are free, less than store.free_space_min ({free_min}). Publishes \
                 that need the disk are refused until there is room; deliveries go on"
            );
        }
        (State::Roomy, Ok(free)) => {
            store.set_disk_full(false);
            tracing::info!("the disk has room: {free} are free; publishes are taken");
        }
        (_, Err(error)) => tracing::error!("the free space of the disk cannot be measured: {error}"),
        (State::Unknown { .. }, Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_all(free: &[Option<u64>]) -> Vec<Option<State>> {
        let mut disk = Disk { free_min: 100, state: State::Roomy };
        let measured = |free: &Option<u64>| free.ok_or(io::Error::other("gone"));
        free.iter().map(|free| disk.judge(&measured(free))).collect()
    }

    #[test]
    fn it_is_full_below_the_minimum_and_roomy_again_with_a_quarter_more() {
        let judged = judge_all(&[Some(100), Some(99), Some(100), Some(124), Some(125), Some(100)]);
        assert_eq!(judged, [None, Some(State::Full), None, None, Some(State::Roomy), None]);
    }

    #[test]
    fn a_disk_that_cannot_be_measured_stays_what_it_was() {
        let judged = judge_all(&[Some(0), None, None, Some(110), Some(130), None, Some(110)]);
        let (lost_full, lost_roomy) = (State::Unknown { full: true }, State::Unknown { full: false });
        let expected = [
            Some(State::Full),
            Some(lost_full),
            None,
            Some(State::Full),
            Some(State::Roomy),
            Some(lost_roomy),
            Some(State::Roomy),
        ];
        assert_eq!(judged, expected);
    }
}
