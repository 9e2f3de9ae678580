//! One line on the terminal, rewritten once a second.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;

use super::report::thousands;
use super::stage::Stage;

const SECOND_NS: u64 = 1_000_000_000;

/// The progress line; silent when standard error is no terminal, or when told so.
#[derive(Debug)]
pub struct Progress {
    visible: bool,
    shown: bool,
    last: Snapshot,
}

#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    at_ns: u64,
    connected: u64,
    sent: u64,
    received: u64,
}

impl Progress {
    /// A line that has not been shown yet.
    pub fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        Self { visible, shown: false, last: Snapshot::default() }
    }

    /// Shows the line when a second has passed since the last time.
    pub fn show(&mut self, stage: &Stage, now_ns: u64) {
        if !self.visible || now_ns.saturating_sub(self.last.at_ns) < SECOND_NS {
            return;
        }
        let counters = &stage.counters;
        let next = Snapshot {
            at_ns: now_ns,
            connected: counters.connected.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
        };
        if self.last.at_ns > 0 {
            self.print(&render(&self.last, &next));
        }
        self.last = next;
    }

    /// Takes the line off the terminal.
    pub fn clear(&mut self) {
        if self.shown {
            self.print("");
        }
    }

    fn print(&mut self, line: &str) {
        self.shown = true;
        let mut stderr = std::io::stderr().lock();
        // A terminal that went away is no reason to stop measuring.
        let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
    }
}

fn render(last: &Snapshot, next: &Snapshot) -> String {
    let seconds = next.at_ns.saturating_sub(last.at_ns) as f64 / SECOND_NS as f64;
    let rate = |before: u64, after: u64| {
        let rate = after.saturating_sub(before) as f64 / seconds.max(0.001);
        thousands(rate.round() as u64)
    };
    format!(
        "connected {}   sent {} ({}/s)   received {} ({}/s)",
        thousands(next.connected),
        thousands(next.sent),
        rate(last.sent, next.sent),
        thousands(next.received),
        rate(last.received, next.received),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_since_the_last_line() {
        let last = Snapshot { at_ns: SECOND_NS, connected: 2, sent: 1_000, received: 500 };
        let next = Snapshot { at_ns: 3 * SECOND_NS, connected: 2, sent: 5_000, received: 2_500 };
        assert_eq!(render(&last, &next), "connected 2   sent 5 000 (2 000/s)   received 2 500 (1 000/s)");
    }
}
