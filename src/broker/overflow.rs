//! A queue that is full: what gives way, how far a limit may be exceeded meanwhile, and who is told.
//!
//! This is judged before anything is done with a message, on all its legs. A queue that drops its oldest takes
//! the message, and the oldest go soon after (`give_up`); should that not keep up, the message itself goes.
//!
//! Invariant: nothing that is judged here is lost. A leg is owed, or its message is a dead letter, or its
//! publisher is told that it was refused and nobody gets it.

use std::collections::HashSet;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::Broker;
use super::fan_out::Plan;
use crate::auth::Escaped;
use crate::config::{Overflow, QueueConfig};
use crate::record::{Addressee, DeadLetterReason, Leg, RecipientNo, UnixMillis};
use crate::store::Backlog;

/// How far a queue that drops its oldest may be above its limit, beside an eighth of that, until they are gone.
const AHEAD_MESSAGES: u64 = 4096;
const AHEAD_BYTES: u64 = 4 << 20;

/// How often the log says that a queue is full.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Queues that are named in that time; the others are counted.
const LOGGED_MAX: usize = 64;

/// Who was told of in this minute.
#[derive(Debug, Default)]
pub(super) struct OverflowLog {
    since: UnixMillis,
    named: HashSet<RecipientNo, RandomState>,
    left_out: u64,
}

/// What is above the limits of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excess {
    messages: u64,
    bytes: u64,
}

impl Broker {
    /// Plans a leg, if there is room for it.
    pub(super) fn owe(
        &self,
        plan: &mut Plan,
        (backlog, queue): (&Backlog, &QueueConfig),
        leg: Leg,
        addressee: impl FnOnce() -> Addressee,
    ) {
        let Some(full) = full(backlog, queue) else { return plan.legs.push(leg) };
        let addressee = addressee();
        self.log_full(leg.recipient, &addressee, queue, full);
        match queue.overflow {
            Overflow::DropOldest if self::full(backlog, &with_slack(queue)).is_none() => {
                plan.gives_up = true;
                plan.legs.push(leg);
            }
            Overflow::Refuse => {
                plan.refused = Some(full);
                plan.full.push((leg.recipient, addressee, full));
            }
            Overflow::DropOldest | Overflow::DropNewest => {
                plan.full.push((leg.recipient, addressee, full));
            }
        }
    }

    /// Whether the publisher is refused, on every leg: because a queue says so, or because what has to be given
    /// up has no room among the dead letters.
    pub(super) fn refuses(&self, plan: &Plan) -> bool {
        let refused = &self.metrics.refused;
        if let Some(reason) = plan.refused {
            let is_bytes = reason == DeadLetterReason::QueueBytesFull;
            if is_bytes { &refused.queue_bytes_full } else { &refused.queue_full }.increment(1);
            return true;
        }
        // Nothing may be acknowledged that would be lost for somebody without a trace.
        let is_lost = (plan.gives_up || !plan.full.is_empty()) && !self.takes_dead_letters();
        if is_lost {
            refused.dead_letters_full.increment(1);
        }
        is_lost
    }

    /// Says that a queue is full: once a minute for each.
    fn log_full(
        &self,
        recipient: RecipientNo,
        addressee: &Addressee,
        queue: &QueueConfig,
        reason: DeadLetterReason,
    ) {
        let now = self.clock.now();
        let mut log = self.overflow_log.lock();
        if now.since(log.since) >= LOG_INTERVAL {
            let left_out = log.left_out;
            *log = OverflowLog { since: now, ..OverflowLog::default() };
            if left_out > 0 {
                tracing::warn!(left_out, "messages found other queues full in the last minute, too");
            }
        }
        if log.named.contains(&recipient) {
            return;
        }
        if log.named.len() >= LOGGED_MAX {
            log.left_out += 1;
            return;
        }
        log.named.insert(recipient);
        drop(log);
        let (kind, name) = match addressee {
            Addressee::Route { route, .. } => ("route", route),
            Addressee::Session { client_id } => ("session", client_id),
            // It has no queue.
            Addressee::Nobody => return,
        };
        tracing::warn!(
            kind,
            name = %Escaped(name),
            reason = reason.as_str(),
            overflow = queue.overflow.as_str(),
            "a queue is full; what is dropped is a dead letter (`causeway dead-letters`), what is refused is \
             told to its publisher"
        );
    }
}

impl Excess {
    /// What is too much now.
    pub fn of(backlog: &Backlog, queue: &QueueConfig) -> Self {
        Self {
            messages: backlog.count().saturating_sub(queue.messages),
            bytes: backlog.bytes().saturating_sub(queue.bytes),
        }
    }

    /// Whether one more message has to go, and why. That one occupies so many bytes.
    pub fn take(&mut self, bytes: u64) -> Option<DeadLetterReason> {
        let reason = match (self.messages, self.bytes) {
            (0, 0) => return None,
            (0, _) => DeadLetterReason::QueueBytesFull,
            (_, _) => DeadLetterReason::QueueFull,
        };
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(reason)
    }

    /// Whether there is nothing too much.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Which limit leaves no room for one message more.
pub(super) fn full(backlog: &Backlog, queue: &QueueConfig) -> Option<DeadLetterReason> {
    if backlog.count() >= queue.messages {
        Some(DeadLetterReason::QueueFull)
    } else if backlog.bytes() >= queue.bytes {
        Some(DeadLetterReason::QueueBytesFull)
    } else {
        None
    }
}

fn with_slack(queue: &QueueConfig) -> QueueConfig {
    QueueConfig {
        messages: queue.messages.saturating_add(queue.messages / 8).saturating_add(AHEAD_MESSAGES),
        bytes: queue.bytes.saturating_add(queue.bytes / 8).saturating_add(AHEAD_BYTES),
        ..*queue
    }
}
