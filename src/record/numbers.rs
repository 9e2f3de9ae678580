//! Numbers with a meaning of their own.

use std::fmt;
use std::time::Duration;

/// The number of a record, and of the message it holds. Numbers rise in the order in which records were
/// submitted and are never used twice, not even after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Below every number that is given out: "nothing to wait for".
    pub const ZERO: Self = Self(0);
}

/// A number with the id of the database that gave it out: the same over restarts, backups and exports.
///
/// As text it is what targets know a message by: `00000000000000ab-7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalNo {
    /// The id that the database had then.
    pub store_id: u64,
    /// The number.
    pub number: Lsn,
}

impl fmt::Display for GlobalNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.store_id, self.number.0)
    }
}

impl GlobalNo {
    /// From its text; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (store_id, number) = text.split_once('-').filter(|(store_id, _)| store_id.len() == 16)?;
        Some(Self { store_id: u64::from_str_radix(store_id, 16).ok()?, number: Lsn(number.parse().ok()?) })
    }
}

/// Who is owed a message: a durable session, a shared group, or a route. Given at creation and never
/// used again, so that a leg stays valid over a resume and is void after the session was discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientNo(pub u64);

/// Which connection of a session speaks. Drawn at each CONNECT; what an older one still says about the
/// session is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Wall-clock time in milliseconds since 1970, as it is stored. At run time it comes from the one clock
/// (wall time at the start plus elapsed time), so that it never jumps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// A time that never comes: "does not expire".
    pub const NEVER: Self = Self(u64::MAX);

    /// This time and so much later; `NEVER` stays `NEVER`.
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
