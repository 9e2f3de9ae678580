//! Looks at the room that the store has on its disk, so that publishes are refused before a commit fails.
//!
//! Room is what is free on the disk, and what is free inside the database: its file does not shrink when a
//! backlog has gone, but its pages are used again.
//!
//! Invariant: the store is told of every change, and the log has one line for each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use crate::broker::Broker;
use crate::telemetry::{self, DiskSpace};

/// How often the disk is looked at, however little is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often while little is left, so that room is noticed that was made.
const INTERVAL_CLOSE: Duration = Duration::from_millis(50);

/// What is little.
const CLOSE: u64 = 64 << 20;

/// A disk need not have more free than this part of it, however small it is.
const PART_OF_DISK: u64 = 10;

/// The least that is kept free on a small disk, unless the configuration asks for less: commits copy pages,
/// so that settlements, too, need some room.
const SMALL_DISK_MIN: u64 = 16 << 20;

/// This part of what has to be there has to be free on the disk itself.
const ON_DISK: u64 = 8;

/// A byte of a row occupies at most this many in the file: pages may be half empty, and the longest rows have
/// pages of their own, of which there are sizes by powers of two.
const PAGE_WASTE: u64 = 3;

/// Looks at the disk for as long as it is polled, and tells the store. Publishes are refused with less room
/// than `free_min`, or than a tenth of a small disk; they are taken again with a quarter more.
pub async fn watch(broker: Arc<Broker>, folder: PathBuf, free_min: u64) {
    let folder: Arc<Path> = folder.into();
    let mut disk = Disk { free_min, state: State::Roomy };
    let mut held = Held::default();
    loop {
        let looked_at = Arc::clone(&folder);
        // A network filesystem that has gone would block a worker thread.
        let space = tokio::task::spawn_blocking(move || telemetry::disk_space(&looked_at)).await;
        let mut is_close = false;
        if let Ok(space) = space {
            let room = space.map(|space| Room::of(&space, held.reusable(space.used, content(&broker))));
            let refuses = broker.store.is_disk_full();
            match disk.judge(&room, refuses) {
                Some(now) => tell(now, &room, &disk),
                None if refuses && disk.state == State::Roomy => tracing::warn!(
                    "publishes were refused for a moment: they came faster than the disk could be looked at"
                ),
                None => {}
            }
            if let Ok(room) = room {
                let left = disk.left(room);
                broker.store.set_room(left, room.all());
                is_close = left < CLOSE;
                broker.store.set_disk_full(disk.state == State::Full);
            }
        }
        let pause = if is_close { INTERVAL_CLOSE } else { INTERVAL };
        // When the store has used half of it up, it is looked at at once. A time that has passed is the rule.
        let _ = tokio::time::timeout(pause, broker.store.room_shrinks()).await;
    }
}

/// Bytes of the rows that are in the database; the few that are not counted are small.
fn content(broker: &Broker) -> u64 {
    broker.store.messages().1 + broker.store.dead_letters().1 + broker.retained_bytes()
}

/// What may still be written, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Free on the disk.
    free: u64,
    /// Free in the database, at least.
    reusable: u64,
    /// The size of the disk.
    total: u64,
}

impl Room {
    fn of(space: &DiskSpace, reusable: u64) -> Self {
        Self { free: space.free, reusable, total: space.total }
    }

    fn all(&self) -> u64 {
        self.free.saturating_add(self.reusable)
    }
}

/// The most that the rows of the database have held: its file has room for that.
#[derive(Debug, Default)]
struct Held {
    most: u64,
}

impl Held {
    /// What is free in a database whose files occupy `used` bytes, at least; `content` is in its rows.
    fn reusable(&mut self, used: u64, content: u64) -> u64 {
        self.most = self.most.max(content).min(used.max(content));
        used.saturating_sub(content.saturating_mul(PAGE_WASTE)).max(self.most - content)
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
    /// What has to be there on a disk of this size, in all.
    fn min(&self, total: u64) -> u64 {
        self.free_min.min((total / PART_OF_DISK).max(SMALL_DISK_MIN))
    }

    /// What may be written before it is full. A part of the minimum has to be free on the disk itself: a
    /// database with free pages grows all the same when none of them is long enough.
    fn left(&self, room: Room) -> u64 {
        let min = self.min(room.total);
        let on_disk = room.free.saturating_sub(min / ON_DISK);
        on_disk.min(room.all().saturating_sub(min))
    }

    /// Whether there is too little. There has to be more than the minimum when it was full, so that it is not
    /// full again at once.
    fn is_short(&self, room: Room, was_full: bool) -> bool {
        let more = if was_full { self.min(room.total) / 4 } else { 0 };
        self.left(room) == 0 || room.all() <= self.min(room.total) + more
    }

    /// The new state, when it has changed. `refused` says that the store refuses publishes: perhaps more was
    /// taken since the last look than there was room for.
    fn judge(&mut self, room: &io::Result<Room>, refused: bool) -> Option<State> {
        let full = match self.state {
            State::Roomy => refused,
            State::Full => true,
            State::Unknown { full } => full,
        };
        let state = match room {
            Err(_) => State::Unknown { full },
            Ok(room) if self.is_short(*room, full) => State::Full,
            Ok(_) => State::Roomy,
        };
        let changed = state != self.state;
        self.state = state;
        changed.then_some(state)
    }
}

fn tell(now: State, room: &io::Result<Room>, disk: &Disk) {
    let shown = |bytes| ByteSize(bytes).display().iec();
    match (now, room) {
        (State::Full, Ok(room)) => tracing::error!(
            "the disk is nearly full: {} are free on it and {} in the database, and {} have to be \
             (store.free_space_min, on a small disk less). Publishes and new sessions that need the disk are refused \
             until there is room; deliveries go on",
            shown(room.free),
            shown(room.reusable),
            shown(disk.min(room.total)),
        ),
        (State::Roomy, Ok(room)) => tracing::info!(
            "the disk has room: {} are free on it and {} in the database; publishes are taken",
            shown(room.free),
            shown(room.reusable),
        ),
        (_, Err(error)) => tracing::error!("the free space of the disk cannot be measured: {error}"),
        (State::Unknown { .. }, Ok(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// Far more than what is free matters for.
    const LARGE: u64 = 1 << 50;

    fn judge_all(free: &[Option<u64>]) -> Vec<Option<State>> {
        let mut disk = Disk { free_min: 100, state: State::Roomy };
        let measured = |free: u64| Room { free, reusable: 0, total: LARGE };
        let measured = |free: &Option<u64>| free.map(measured).ok_or(io::Error::other("gone"));
        free.iter().map(|free| disk.judge(&measured(free), false)).collect()
    }

    #[test]
    fn it_is_full_at_the_minimum_and_roomy_again_with_more_than_a_quarter_more() {
        let judged = judge_all(&[Some(101), Some(100), Some(101), Some(125), Some(126), Some(101)]);
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

    #[test]
    fn a_store_that_refuses_has_taken_more_than_fits() {
        let mut disk = Disk { free_min: 100, state: State::Roomy };
        let room = |free| Ok(Room { free, reusable: 0, total: LARGE });
        assert_eq!(disk.judge(&room(120), true), Some(State::Full));
        assert_eq!(disk.judge(&room(126), true), Some(State::Roomy));
        assert_eq!(disk.judge(&room(1000), true), None, "a burst, and there is room for it");
    }

    #[test]
    fn a_small_disk_keeps_less_free() {
        let disk = Disk { free_min: 256 * MIB, state: State::Roomy };
        let min = |total: u64| disk.min(total * MIB) / MIB;
        assert_eq!([min(16), min(64), min(1000), min(2560), min(100_000)], [16, 16, 100, 256, 256]);
        let disk = Disk { free_min: MIB, state: State::Roomy };
        assert_eq!(disk.min(64 * MIB), MIB, "as the operator says");
    }

    #[test]
    fn what_is_free_in_the_database_counts_but_the_disk_needs_some_too() {
        let disk = Disk { free_min: 100, state: State::Full };
        let left = |free, used, content| {
            let space = DiskSpace { free, used, total: LARGE };
            disk.left(Room::of(&space, Held::default().reusable(used, content)))
        };
        assert_eq!(left(80, 1000, 400), 0, "it may all be in use");
        assert_eq!(left(80, 1000, 100), 68, "700 are free in it");
        assert_eq!(left(90, 1000, 320), 30);
        assert_eq!(left(12, 1000, 0), 0);
    }

    #[test]
    fn what_the_database_has_held_it_can_hold_again() {
        let mut held = Held::default();
        assert_eq!(held.reusable(1000, 900), 0);
        assert_eq!(held.reusable(1000, 500), 400);
        assert_eq!(held.reusable(1000, 100), 800, "or what is not in use, however wasteful its pages are");
        assert_eq!(held.reusable(400, 100), 300, "a file that was made shorter has not");
    }
}
