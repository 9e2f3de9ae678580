//! What happened in a run, as one number: two runs of a seed have the same, or something is left to chance.

use std::fmt::{self, Write as _};

/// A hash of every event. With `CAUSEWAY_SIM_TRACE` in the environment the events are printed, too.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    prints: bool,
    line: String,
}

impl Trace {
    pub fn new() -> Self {
        let prints = std::env::var_os("CAUSEWAY_SIM_TRACE").is_some();
        Self { hash: 0xcbf2_9ce4_8422_2325, prints, line: String::new() }
    }

    /// Adds an event.
    pub fn add(&mut self, now: u64, event: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = write!(self.line, "{now:>9} {event}");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.prints {
            println!("{}", self.line);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }
}
