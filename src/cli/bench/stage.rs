//! What the clients of one load run share: the phase it is in, the counters, the first failure.
//!
//! Invariant: phases only advance.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::clock::{Clock, nanos};
use super::error::BenchError;
use super::progress::Progress;

/// How often a waiting run looks at its counters.
const TICK: Duration = Duration::from_millis(5);

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Clients connect and subscribe.
    Prepare,
    /// Publishers send.
    Run,
    /// Nothing new is sent; what is under way may still arrive.
    Drain,
    /// Clients leave.
    End,
}

/// Why a run, or a phase of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// What was asked for was done.
    Complete,
    /// The time asked for was over.
    Duration,
    /// Nothing moved for the time that `--timeout` allows.
    Stalled,
    /// A client failed.
    Failed,
    /// Ctrl-C.
    Interrupted,
}

/// What all clients count into, once per batch.
#[derive(Debug, Default)]
pub struct Counters {
    /// PUBLISH packets handed to a socket.
    pub sent: AtomicU64,
    /// PUBACK and PUBCOMP; for QoS 0 whatever precedes the answer to a last PINGREQ.
    pub acknowledged: AtomicU64,
    /// Acknowledgements that say the message was refused.
    pub refused: AtomicU64,
    /// Messages received.
    pub received: AtomicU64,
    /// Messages received for the first time, by each subscriber.
    pub distinct: AtomicU64,
    /// CONNACKs.
    pub connected: AtomicU64,
    /// When something was acknowledged.
    pub acknowledged_span: Span,
    /// When something was received.
    pub received_span: Span,
    /// When CONNACKs came.
    pub connected_span: Span,
}

/// The first and the last time that something happened (ns; 0 is never).
#[derive(Debug, Default)]
pub struct Span {
    first: AtomicU64,
    last: AtomicU64,
}

/// Failures of clients: how many, and the first.
#[derive(Debug, Default)]
pub struct Failures {
    /// Clients that could not connect or go on.
    pub count: u64,
    /// `None` when there was no failure, or it has been taken.
    pub first: Option<BenchError>,
}

/// What ends a wait besides its condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// A point in time (ns).
    pub until_ns: Option<u64>,
    /// So long without any counter moving.
    pub stall: Option<Duration>,
    /// Whether a client's failure is a reason to end.
    pub failures_end: bool,
}

/// The shared state of a run.
#[derive(Debug)]
pub struct Stage {
    /// The one clock.
    pub clock: Clock,
    /// Drawn at the start: tells this run's messages and client identifiers from another's.
    pub run: u16,
    /// What all clients have done so far.
    pub counters: Counters,
    phase: AtomicU8,
    started_ns: AtomicU64,
    changed: Notify,
    ready: AtomicU64,
    interrupted: AtomicBool,
    failures: Mutex<Failures>,
}

impl Stage {
    /// A run that has not begun.
    pub fn new(run: u16) -> Self {
        Self {
            clock: Clock::start(),
            run,
            counters: Counters::default(),
            phase: AtomicU8::new(Phase::Prepare as u8),
            started_ns: AtomicU64::new(0),
            changed: Notify::new(),
            ready: AtomicU64::new(0),
            interrupted: AtomicBool::new(false),
            failures: Mutex::new(Failures::default()),
        }
    }

    /// The phase the run is in.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Prepare,
            1 => Phase::Run,
            2 => Phase::Drain,
            _ => Phase::End,
        }
    }

    /// Goes on to `phase` and wakes every client.
    pub fn advance(&self, phase: Phase) {
        if phase == Phase::Run {
            self.started_ns.store(self.clock.now_ns(), Ordering::Release);
        }
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Completes at the next change of phase.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Completes when messages may be sent; gives false when the run ends instead.
    pub async fn started(&self) -> bool {
        loop {
            let changed = self.changed();
            match self.phase() {
                Phase::Prepare => changed.await,
                phase => return phase == Phase::Run,
            }
        }
    }

    /// When messages began to be sent (ns).
    pub fn started_ns(&self) -> u64 {
        self.started_ns.load(Ordering::Acquire)
    }

    /// A client says that it is connected and, where it subscribes, subscribed.
    pub fn client_ready(&self) {
        self.ready.fetch_add(1, Ordering::AcqRel);
    }

    /// How many clients are ready.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Acquire)
    }

    /// A client could not go on; what it counted until then still counts.
    pub fn client_failed(&self, error: BenchError) {
        let mut failures = self.failures.lock();
        failures.count += 1;
        failures.first.get_or_insert(error);
    }

    /// How many clients could not go on.
    pub fn failed(&self) -> u64 {
        self.failures.lock().count
    }

    /// The failures so far; the first is given away.
    pub fn take_failures(&self) -> Failures {
        let mut failures = self.failures.lock();
        Failures { count: failures.count, first: failures.first.take() }
    }

    /// Somebody pressed Ctrl-C.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    /// Waits until `done`, or until something in `limits` happens, and shows progress meanwhile.
    pub async fn wait(&self, limits: Limits, progress: &mut Progress, done: impl Fn() -> bool) -> Ended {
        let mut moved = (0, self.clock.now_ns());
        loop {
            if done() {
                return Ended::Complete;
            }
            let now = self.clock.now_ns();
            let moves = self.counters.moves() + self.ready();
            if moves != moved.0 {
                moved = (moves, now);
            }
            if let Some(ended) = self.ended(&limits, now, moved.1) {
                return ended;
            }
            progress.show(self, now);
            tokio::time::sleep(TICK).await;
        }
    }

    fn ended(&self, limits: &Limits, now: u64, moved_ns: u64) -> Option<Ended> {
        // Taken, so that a first Ctrl-C ends the sending and a second one the waiting for what is under way.
        if self.interrupted.swap(false, Ordering::AcqRel) {
            return Some(Ended::Interrupted);
        }
        if limits.failures_end && self.failed() > 0 {
            return Some(Ended::Failed);
        }
        if limits.until_ns.is_some_and(|until| now >= until) {
            return Some(Ended::Duration);
        }
        let stalled = limits.stall.is_some_and(|stall| now.saturating_sub(moved_ns) >= nanos(stall));
        stalled.then_some(Ended::Stalled)
    }
}

impl Counters {
    fn moves(&self) -> u64 {
        let all = [&self.sent, &self.acknowledged, &self.refused, &self.received, &self.connected];
        all.iter().fold(0, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)))
    }
}

impl Span {
    /// Notes that it happened at `now_ns`.
    pub fn note(&self, now_ns: u64) {
        if self.first.load(Ordering::Relaxed) == 0 {
            // Only the first of several threads stores; whoever loses was later by next to nothing.
            let _ = self.first.compare_exchange(0, now_ns, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.last.fetch_max(now_ns, Ordering::AcqRel);
    }

    /// The first time, or 0.
    pub fn first_ns(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// The last time, or 0.
    pub fn last_ns(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn phases_never_go_back() {
        let stage = Stage::new(1);
        stage.advance(Phase::End);
        stage.advance(Phase::Drain);
        assert_eq!(stage.phase(), Phase::End);
    }

    #[test]
    fn a_wait_ends_at_its_time_or_when_nothing_moves() {
        let stage = Stage::new(1);
        let limits = Limits {
            until_ns: Some(50 * SECOND_NS),
            stall: Some(Duration::from_secs(10)),
            failures_end: true,
        };
        let now = 20 * SECOND_NS;
        assert_eq!(stage.ended(&limits, now, now), None);
        assert_eq!(stage.ended(&limits, now, 10 * SECOND_NS + 1), None);
        assert_eq!(stage.ended(&limits, now, 10 * SECOND_NS), Some(Ended::Stalled));
        assert_eq!(stage.ended(&limits, 50 * SECOND_NS, 50 * SECOND_NS), Some(Ended::Duration));
    }

    #[test]
    fn a_failure_ends_a_wait_only_where_it_should() {
        let stage = Stage::new(1);
        stage.client_failed(BenchError::Closed);
        stage.client_failed(BenchError::Protocol("later".to_owned()));
        assert_eq!(stage.ended(&Limits::default(), 1, 1), None);
        let limits = Limits { failures_end: true, ..Limits::default() };
        assert_eq!(stage.ended(&limits, 1, 1), Some(Ended::Failed));
        let failures = stage.take_failures();
        assert_eq!(failures.count, 2);
        assert!(matches!(failures.first, Some(BenchError::Closed)));
    }

    #[test]
    fn each_interrupt_ends_one_wait() {
        let stage = Stage::new(1);
        stage.interrupt();
        assert_eq!(stage.ended(&Limits::default(), 1, 1), Some(Ended::Interrupted));
        assert_eq!(stage.ended(&Limits::default(), 1, 1), None);
    }

    #[test]
    fn a_span_keeps_its_ends() {
        let span = Span::default();
        for now in [5, 9, 7] {
            span.note(now);
        }
        assert_eq!((span.first_ns(), span.last_ns()), (5, 9));
    }
}
