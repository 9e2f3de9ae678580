//! The heart of a connection's task: read, settle, write, and sleep only when there is nothing to do.

use std::future::Future as _;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;

use super::scratch::{self, Scratch};
use super::{Connection, End};
use crate::auth::Escaped;
use crate::codec::ReasonCode;
use crate::record::{Change, Lsn, Record, SessionDelta, UnixMillis};
use crate::session::Close;
use crate::store::Strike;

/// Rounds of reading and writing before other connections of this thread have their turn.
const ROUNDS_MAX: usize = 4;

/// How long a connection that has to leave goes on reading.
const LAST_LOOK: Duration = Duration::from_millis(2);

/// How often a connection looks whether the disk has room, that waits for it.
const LOOKS_AT_DISK: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        scratch::with(|scratch| match self.drive(cx, scratch) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        })
    }

    /// Works until there is nothing to do, or the turn is over. When this returns, everything that can wake
    /// the task knows whom to wake.
    fn drive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), End> {
        for _ in 0..ROUNDS_MAX {
            let rung = self.link.bell.poll_heard(cx.waker());
            let now = self.context.broker.clock.now();
            self.watermark = self.context.broker.store.watermark();
            let has_read = self.read(cx, scratch, now)?;
            self.check_eviction(now)?;
            // Silence is judged after the look at the socket: what waits there was said in time.
            self.session.handle_time(now)?;
            self.check_packet(now)?;
            self.settle(now)?;
            let has_written = self.write(cx, scratch, now)?;
            self.settle(now)?;
            self.publishing.wake();
            self.give_way(now);
            if !rung && !has_read && !has_written && self.sleep(cx, now)? {
                return Ok(());
            }
        }
        self.count();
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Leaves when it was told to: another connection takes the session over, or the broker stops. What has
    /// arrived until then is read first, and the runtime needs a moment to say that something has: a client
    /// that says DISCONNECT and comes back at once has left no will.
    fn check_eviction(&mut self, now: UnixMillis) -> Result<(), End> {
        self.check_seat()?;
        let Some(reason) = self.link.eviction() else { return Ok(()) };
        let leaves_at = *self.leaves_at.get_or_insert(now.plus(LAST_LOOK));
        if now < leaves_at {
            return Ok(());
        }
        Err(Close::because(reason, "the connection was told to leave").into())
    }

    /// Leaves when the seat was taken from it: what the client says here is said for nobody any more.
    pub(super) fn check_seat(&self) -> Result<(), Close> {
        if !self.link.is_unseated() {
            return Ok(());
        }
        Err(Close::because(ReasonCode::SessionTakenOver, "another connection has taken the session over"))
    }

    /// Leaves when the client has begun a packet and does not finish it.
    fn check_packet(&self, now: UnixMillis) -> Result<(), End> {
        if self.packet_due().is_none_or(|due| now < due) {
            return Ok(());
        }
        let detail = "a packet was not complete in time";
        Err(Close::because(ReasonCode::ImplementationSpecificError, detail).into())
    }

    /// Strikes settled legs from records that still wait, and reports the rest when it is time.
    fn settle(&mut self, now: UnixMillis) -> Result<(), End> {
        self.strike_settled(now);
        if self.session.must_report(now) || self.is_queue_filling() {
            self.submit_report()?;
        }
        Ok(())
    }

    /// Whether a queue that this client takes from is more than half full. What it has acknowledged must not
    /// count there for long.
    fn is_queue_filling(&self) -> bool {
        let limits = &self.context.broker.limits().queue;
        let group = self.settling.last().and_then(|(group, _)| group.durable());
        let mut queues = self.slot.durable().into_iter().chain(group);
        queues.any(|queue| limits.is_filling(queue.backlog.count(), queue.backlog.bytes()))
    }

    /// A leg that is settled before the writer has taken its record is never written.
    fn strike_settled(&mut self, now: UnixMillis) {
        // Rung for after the last: a publisher hears once of everything that its client has acknowledged.
        let mut publishers = SmallVec::<[_; 8]>::new();
        for claim in self.session.take_settled() {
            if self.context.broker.settle_unstored(&self.slot, &claim) {
                continue;
            }
            let group = self.context.broker.group_of(&self.slot, &claim);
            if let Some(Strike::Struck(bell)) = claim.entry.as_ref().map(|entry| entry.strike(claim.owner)) {
                group.into_iter().for_each(|group| group.struck(claim.lsn));
                publishers.extend(bell);
                continue;
            }
            self.session.settle_by_report(&claim, now);
            if let Some(group) = group {
                group.settling(claim.lsn);
                self.settling.push((group, claim.lsn));
            }
        }
        publishers.iter().for_each(|bell| bell.ring());
    }

    /// Reports everything at once, due or not.
    pub(super) fn report_all(&mut self, now: UnixMillis) -> Result<(), End> {
        self.strike_settled(now);
        self.submit_report()
    }

    fn submit_report(&mut self) -> Result<(), End> {
        let Some(delta) = self.session.take_report() else { return Ok(()) };
        let mut record = report_record(delta, self.session.durable().is_some());
        record.changes.append(&mut self.letters);
        let entry = self.context.broker.store.submit(record).map_err(|_| store_failed())?;
        self.session.reported(entry.lsn);
        self.last_report = entry.lsn;
        for (group, lsn) in self.settling.drain(..) {
            group.settled_by(entry.lsn, lsn, self.watermark);
        }
        Ok(())
    }

    /// What the session still holds back is reported when its connection ends.
    pub(super) fn report_at_end(&mut self) {
        let now = self.context.broker.clock.now();
        // Refused only when the store has failed: then what was settled is delivered again after the restart.
        let _ = self.report_all(now);
    }

    /// Goes to sleep. False when something has come up meanwhile.
    fn sleep(&mut self, cx: &mut Context<'_>, now: UnixMillis) -> Result<bool, End> {
        self.count();
        let broker = &self.context.broker;
        if broker.store.has_failed() {
            return Err(store_failed().into());
        }
        // The socket was not looked at, and does not know whom to wake.
        if self.reading_paused && self.may_read() {
            return Ok(false);
        }
        if let Some(lsn) = self.waits_for()
            && self.rings_at != lsn
        {
            self.rings_at = lsn;
            broker.store.ring_at(lsn, &self.link.bell);
        }
        if let Some(entry) = self.session.reply_waits_with() {
            entry.ring_when_complete(&self.link.bell);
        }
        if !self.takes_frames() {
            self.let_others_fetch();
        } else if !self.slot.park() {
            return Ok(false);
        }
        self.poll_timer(cx, now)
    }

    /// The number of the next record that something here waits for. What is not above the watermark of this
    /// round waits for something else that wakes the task: window, room or socket. What became durable since
    /// is above it, and then the bell rings at once.
    fn waits_for(&self) -> Option<Lsn> {
        let held_back = self.frames.front().map(|delivery| delivery.not_before);
        let scan = self.scans.front().map(|(safe_at, _)| *safe_at);
        // What congests the store is not durable yet, so that the next number is sure to come.
        let room = self.is_store_congested().then_some(Lsn(self.watermark.0 + 1));
        let reply = self.session.reply_waits_for();
        let held = self.session.held_waits_for();
        let numbers = [held_back, scan, room, reply, held, self.backlog.waits_for()];
        numbers.into_iter().flatten().filter(|lsn| *lsn > self.watermark).min()
    }

    pub(super) fn is_store_congested(&self) -> bool {
        self.context.broker.store.is_congested()
    }

    /// Sets the timer to what is due first. True when it is not due yet.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: UnixMillis) -> Result<bool, End> {
        let write = self.blocked_since.map(|since| since.plus(self.context.write_timeout));
        if write.is_some_and(|due| due <= now) {
            let client_id = Escaped(self.session.client_id());
            tracing::info!(%client_id, peer = %self.peer, "cut: the client has taken nothing for limits.write_timeout");
            return Err(End::Lost);
        }
        let gives_way_until = self.gives_way.as_ref().map(|(_, until)| *until);
        let looks_at_disk = self.scan_waits_for_disk().then(|| now.plus(LOOKS_AT_DISK));
        let dues = [
            self.session.deadline(),
            self.packet_due(),
            write,
            self.leaves_at,
            gives_way_until,
            looks_at_disk,
        ];
        let Some(due) = dues.into_iter().flatten().min() else { return Ok(true) };
        let wait = due.since(now).max(Duration::from_millis(1));
        let at = tokio::time::Instant::now() + wait;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // Set again only to something earlier, or when it has fired: not with each packet.
        if at < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        Ok(timer.as_mut().poll(cx).is_pending())
    }
}

pub(super) fn store_failed() -> Close {
    Close::because(ReasonCode::ServerUnavailable, "the store has failed")
}

/// A durable session reports under its own name; one that is not can only have settled for a shared group.
fn report_record(delta: SessionDelta, durable: bool) -> Record {
    if durable {
        return Record::of([Change::Progress(Box::new(delta))]);
    }
    let settled = delta.settled_shared.into_iter().map(|(group, lsn)| Change::Settled(group, vec![lsn]));
    Record::of(settled.collect::<Vec<_>>())
}
