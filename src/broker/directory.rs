//! Who has which session: CONNECT finds, takes over or makes one, and the end of a connection gives it back.
//!
//! Invariant: one connection speaks for a session. The epoch is drawn under the slot's lock and the newest
//! wins; a connection that was overtaken never gets the session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::Entry;
use parking_lot::MutexGuard;

use super::slot::{SlotInner, SlotWill};
use super::{Broker, DurableSlot, Link, Mode, Slot};
use crate::codec::ReasonCode;
use crate::record::{Change, Epoch, Record, SessionOpened, UnixMillis, WillRecord};
use crate::session::{Durable, Terms};
use crate::store::{Progress, SubmitError, beside};

/// What a connection asks for after its CONNECT was accepted.
#[derive(Debug)]
pub struct AttachRequest<'a> {
    /// What was agreed on.
    pub terms: &'a Terms,
    /// The user name, if somebody has checked it.
    pub user_name: Option<Arc<str>>,
    /// The will.
    pub will: Option<WillRecord>,
    /// How the connection is reached.
    pub link: Arc<Link>,
}

/// A session in the hands of a connection.
#[derive(Debug)]
pub struct Attachment {
    /// Its place.
    pub slot: Arc<Slot>,
    /// Its name in the store, when it is durable.
    pub durable: Option<Durable>,
    /// What an earlier connection left, when there was one.
    pub progress: Option<Progress>,
    /// The earlier connection did not end in order.
    pub torn: bool,
}

impl Attachment {
    /// Session Present [MQTT-3.2.2-3].
    pub fn session_present(&self) -> bool {
        self.progress.is_some()
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Departure {
    /// DISCONNECT with reason 0x00 (or any DISCONNECT before 5.0): the will is void [MQTT-3.14.4-3].
    pub without_will: bool,
    /// The Session Expiry Interval of the DISCONNECT, seconds.
    pub expiry: Option<u32>,
    /// Its last reports may be missing, or those of one before it that it could not make up for.
    pub torn: bool,
}

/// A slot that was found or made, with the epoch drawn for this connection.
struct Drawn {
    slot: Arc<Slot>,
    epoch: Epoch,
    made: bool,
}

/// How the connection before has left the seat.
struct Seat {
    /// It did not end in order.
    torn: bool,
    /// It got so far that there is a session to resume.
    opened: bool,
}

impl Broker {
    /// Gives the connection its session: a new one, the one it had, or the one another connection still
    /// has, which is told to leave. Returns when everything about it is durable.
    ///
    /// # Errors
    /// The reason code for the CONNACK.
    pub async fn attach(&self, request: AttachRequest<'_>) -> Result<Attachment, ReasonCode> {
        let drawn = loop {
            let drawn = self.draw(&request)?;
            if drawn.made {
                break drawn;
            }
            let has_left = self.wait_until_left(&drawn).await?;
            if self.resumes_or_ends(&drawn, &request, has_left)? {
                break drawn;
            }
        };
        let Drawn { slot, epoch, .. } = drawn;
        let Seat { torn, opened } = self.take_seat(&slot, epoch, &request)?;
        let Some(recipient) = slot.durable().map(|durable| durable.recipient) else {
            return Ok(Attachment { slot, durable: None, progress: None, torn: false });
        };
        let attachment = Attachment {
            durable: Some(Durable { recipient, epoch }),
            progress: None,
            torn: torn && opened,
            slot: Arc::clone(&slot),
        };
        match self.open(&attachment, &request, opened).await {
            Ok(progress) => {
                progress.iter().for_each(|progress| self.release_left_behind(&slot, progress));
                Ok(Attachment { progress, ..attachment })
            }
            Err(reason) => {
                let departure = Departure { torn: attachment.torn, ..Departure::default() };
                self.detach(&slot, &request.link, departure);
                Err(reason)
            }
        }
    }

    /// The connection has ended. What was in its outbox is owed by the store, or lost with the session.
    pub fn detach(&self, slot: &Arc<Slot>, link: &Arc<Link>, departure: Departure) {
        let inner = slot.lock();
        if !inner.link.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, link)) {
            return;
        }
        self.vacate(slot, inner, departure);
        slot.left.notify_waiters();
    }

    /// The session of a client id.
    pub fn find(&self, client_id: &str) -> Option<Arc<Slot>> {
        self.directory.get(client_id).map(|slot| Arc::clone(slot.value()))
    }

    /// All sessions, for those who list them.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.directory.iter().map(|slot| Arc::clone(slot.value())).collect()
    }

    /// Tells every connection to leave, also those that are still coming in.
    pub fn evict_all(&self, reason: ReasonCode) {
        // Before the look around: who comes later sees this. The first reason stands.
        let _ = self.leaving.set(reason);
        self.evict_connected(reason);
    }

    pub(super) fn evict_connected(&self, reason: ReasonCode) {
        self.slots().iter().filter_map(|slot| slot.link()).for_each(|link| link.evict(reason));
    }

    /// Ends a session: its subscriptions and what it is owed are void, and its will is published.
    pub(super) fn end_session(&self, slot: &Arc<Slot>) {
        let inner = slot.lock();
        let is_offline = inner.link.is_none();
        self.end(slot, inner, is_offline);
    }

    /// Ends a session under the lock it was decided under: a connection that takes the seat afterwards finds
    /// it ended. What it has in hand of its groups is settled with it when no connection is there that knows
    /// better.
    fn end(&self, slot: &Arc<Slot>, mut inner: MutexGuard<'_, SlotInner>, settles_shared: bool) {
        if inner.mode == Mode::Ended {
            return;
        }
        inner.mode = Mode::Ended;
        let will = inner.will.take();
        inner.drop_frames();
        self.timers.forget(slot, &mut inner);
        let groups = if settles_shared { inner.groups.clone() } else { Vec::new() };
        drop(inner);
        self.withdraw_all(slot);
        self.directory.remove_if(&slot.client_id, |_, known| known.id == slot.id);
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        let discarded = slot.durable().map(|durable| {
            self.forget_watched(durable.recipient);
            Change::Discarded(durable.recipient)
        });
        // [MQTT-4.8.2-5] What is left is QoS 2 that was begun: nobody else gets it.
        self.settle_hands(slot, &groups, |left| {
            let changes = discarded.into_iter().chain(left).collect();
            match will {
                Some(will) => self.publish_will(slot, will, changes),
                None => self.submit_unawaited(changes),
            }
        });
    }

    /// Finds the slot of the client id, or makes one, and draws an epoch: whoever has the slot is told to
    /// leave.
    fn draw(&self, request: &AttachRequest<'_>) -> Result<Drawn, ReasonCode> {
        let client_id = &request.terms.client_id;
        match self.directory.entry(Arc::clone(client_id)) {
            Entry::Occupied(entry) => {
                let slot = Arc::clone(entry.get());
                let mut inner = slot.lock();
                inner.epoch.0 += 1;
                let epoch = inner.epoch;
                if let Some(link) = &inner.link {
                    link.evict(ReasonCode::SessionTakenOver);
                }
                drop(inner);
                Ok(Drawn { slot, epoch, made: false })
            }
            Entry::Vacant(entry) => {
                self.admits_session(request)?;
                if self.sessions.fetch_add(1, Ordering::Relaxed) >= self.limits.sessions {
                    self.sessions.fetch_sub(1, Ordering::Relaxed);
                    return Err(ReasonCode::QuotaExceeded);
                }
                let slot = Arc::new(self.make_slot(request));
                entry.insert(Arc::clone(&slot));
                self.watch(&slot);
                Ok(Drawn { slot, epoch: Epoch(1), made: true })
            }
        }
    }

    /// A session that is new and durable needs the disk, like a publish.
    fn admits_session(&self, request: &AttachRequest<'_>) -> Result<(), ReasonCode> {
        match self.store.admits_publish() {
            Err(SubmitError::Full | SubmitError::OverBudget) if request.terms.session_expiry > 0 => {
                Err(ReasonCode::QuotaExceeded)
            }
            _ => Ok(()),
        }
    }

    fn make_slot(&self, request: &AttachRequest<'_>) -> Slot {
        let terms = request.terms;
        let durable = (terms.session_expiry > 0).then(|| {
            let (recipient, backlog) = self.store.new_recipient();
            DurableSlot { recipient, backlog }
        });
        let slot = Slot::new(
            Arc::clone(&terms.client_id),
            self.new_id(),
            durable,
            terms.session_expiry,
            &self.memory,
        );
        slot.lock().epoch = Epoch(1);
        slot
    }

    /// Waits for the connection that has the slot to leave; at the deadline it is taken from it. A takeover
    /// is obeyed between packets, so that this is a matter of microseconds. True when it has left by itself.
    ///
    /// # Errors
    /// When a newer connection has drawn a later epoch.
    async fn wait_until_left(&self, drawn: &Drawn) -> Result<bool, ReasonCode> {
        let Drawn { slot, epoch, .. } = drawn;
        let left = async {
            loop {
                let notified = slot.left.notified();
                if !slot.is_online() {
                    return;
                }
                notified.await;
            }
        };
        let in_time = tokio::time::timeout(self.limits.takeover_timeout, left).await;
        let inner = slot.lock();
        if inner.epoch != *epoch {
            return Err(ReasonCode::SessionTakenOver);
        }
        let has_left = in_time.is_ok() || inner.link.is_none();
        if !has_left {
            tracing::warn!(client_id = %slot.client_id, "a connection did not leave its session in time");
            self.vacate(slot, inner, Departure { torn: true, ..Departure::default() });
        }
        Ok(has_left)
    }

    /// Whether the connection goes on with the session it found; otherwise that ends.
    ///
    /// # Errors
    /// When a newer connection has drawn a later epoch: the session is that one's to end.
    fn resumes_or_ends(
        &self,
        drawn: &Drawn,
        request: &AttachRequest<'_>,
        has_left: bool,
    ) -> Result<bool, ReasonCode> {
        let inner = drawn.slot.lock();
        if inner.epoch != drawn.epoch {
            return Err(ReasonCode::SessionTakenOver);
        }
        let ended = inner.mode == Mode::Ended;
        let resumes = !ended && !request.terms.clean_start && drawn.slot.durable().is_some();
        if !resumes {
            self.end(&drawn.slot, inner, has_left);
        }
        Ok(resumes)
    }

    /// Takes the seat, and says how it was left.
    fn take_seat(
        &self,
        slot: &Arc<Slot>,
        epoch: Epoch,
        request: &AttachRequest<'_>,
    ) -> Result<Seat, ReasonCode> {
        let mut inner = slot.lock();
        if inner.epoch != epoch || inner.mode == Mode::Ended {
            return Err(ReasonCode::SessionTakenOver);
        }
        let now = self.now_for(&inner, self.clock.now());
        let overdue = inner.take_due_will(now);
        inner.link = Some(Arc::clone(&request.link));
        inner.seat_epoch = epoch;
        inner.empty_hand();
        // The client is back before the delay has passed: the old will is void [MQTT-3.1.3-9].
        inner.will = request.will.clone().map(|record| SlotWill {
            record,
            user_name: request.user_name.clone(),
            epoch,
            due: None,
        });
        inner.expiry = request.terms.session_expiry;
        inner.window = request.terms.send_window.into();
        inner.closed_at = None;
        inner.mode = if slot.durable().is_some() { Mode::Backlog } else { Mode::Live };
        self.metrics.connections.increment(1);
        let seat = Seat { torn: std::mem::replace(&mut inner.torn, true), opened: inner.opened };
        drop(inner);
        if let Some(will) = overdue {
            self.publish_will(slot, will, Vec::new());
        }
        if let Some(reason) = self.leaving.get().copied().or_else(|| self.redirect_reason()) {
            request.link.evict(reason);
        }
        Ok(seat)
    }

    /// Makes it durable that the session was created or resumed, and reads what it left.
    pub(super) async fn open(
        &self,
        attachment: &Attachment,
        request: &AttachRequest<'_>,
        resumed: bool,
    ) -> Result<Option<Progress>, ReasonCode> {
        let Some(Durable { recipient, epoch }) = attachment.durable else { return Ok(None) };
        let opened = SessionOpened {
            recipient,
            epoch,
            client_id: Arc::clone(&request.terms.client_id),
            user_name: request.user_name.clone(),
            expiry: request.terms.session_expiry,
            will: request.will.clone(),
            at: self.clock.now(),
        };
        let record = Record::of([Change::SessionOpened(Box::new(opened))]);
        let submitted = {
            // Under the lock: an operator may end the session meanwhile, and what is discarded is not opened again.
            let inner = attachment.slot.lock();
            if inner.mode == Mode::Ended {
                return Err(ReasonCode::ServerBusy);
            }
            self.store.submit(record).map_err(|_| ReasonCode::ServerUnavailable)?
        };
        self.store.durable(submitted.lsn).await.map_err(|_| ReasonCode::ServerUnavailable)?;
        attachment.slot.lock().opened = true;
        if !resumed {
            return Ok(None);
        }
        let store = self.store.clone();
        let read = beside(move || store.progress(recipient)).await;
        match read {
            Ok(Ok(progress)) => Ok(Some(progress)),
            Ok(Err(error)) => {
                tracing::error!(client_id = %attachment.slot.client_id, %error, "a session cannot be read");
                Err(ReasonCode::UnspecifiedError)
            }
            Err(_) => Err(ReasonCode::ServerUnavailable),
        }
    }

    /// The seat is free again: the connection has left, or it is taken from it. A session that ends with its
    /// connection ends here. A will without a delay is published here and not by the timer: the connection
    /// that waits for the seat would void it, as if the client had come back in time.
    fn vacate(&self, slot: &Arc<Slot>, mut inner: MutexGuard<'_, SlotInner>, departure: Departure) {
        let now = self.clock.now();
        inner.link.take().into_iter().for_each(|link| link.unseat());
        self.metrics.connections.decrement(1);
        if inner.mode == Mode::Ended {
            return;
        }
        inner.mode = Mode::Offline;
        inner.drop_frames();
        inner.closed_at = Some(now);
        inner.torn = departure.torn;
        if let Some(expiry) = departure.expiry {
            inner.expiry = expiry;
        }
        if departure.without_will {
            inner.will = None;
        }
        if inner.expiry == 0 {
            return self.end(slot, inner, false);
        }
        let expires = now.plus(Duration::from_secs(inner.expiry.into()));
        if let Some(will) = &mut inner.will {
            // The end of the session publishes the will too, whichever is first [MQTT-3.1.2-8].
            let due = now.plus(Duration::from_secs(will.record.delay.into())).min(expires);
            will.due = Some(due);
        }
        self.schedule(slot, &mut inner);
        if let Some(durable) = slot.durable() {
            let closed = Change::SessionClosed {
                recipient: durable.recipient,
                epoch: inner.seat_epoch,
                at: now,
                expiry: inner.expiry,
                keep_will: inner.will.is_some(),
                torn: inner.torn,
            };
            // A crash before the commit costs nothing but the exact time.
            self.submit_unawaited(vec![closed]);
            inner.tells_until(self.store.last_submitted());
        }
        let will = inner.take_due_will(now);
        drop(inner);
        if let Some(will) = will {
            self.publish_will(slot, will, Vec::new());
        }
    }

    /// The time that the deadlines of a slot are judged by, since its client has left.
    fn now_for(&self, inner: &SlotInner, now: UnixMillis) -> UnixMillis {
        inner.closed_at.map_or(now, |closed_at| self.store.timeline().now_for(closed_at, now))
    }

    /// Does what is due in this slot: ends the session, or publishes its will.
    pub(super) fn handle_time(&self, slot: &Arc<Slot>, now: UnixMillis) {
        let mut inner = slot.lock();
        inner.wakes_at = None;
        if inner.link.is_some() || inner.mode == Mode::Ended {
            return;
        }
        let now = self.now_for(&inner, now);
        if inner.expires_at().is_some_and(|expires| expires <= now) {
            tracing::debug!(client_id = %slot.client_id, "session expired");
            self.metrics.sessions_expired.increment(1);
            return self.end(slot, inner, true);
        }
        let will = inner.take_due_will(now);
        self.schedule(slot, &mut inner);
        drop(inner);
        if let Some(will) = will {
            self.publish_will(slot, will, Vec::new());
        }
    }
}
