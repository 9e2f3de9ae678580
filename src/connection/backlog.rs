//! What a client is owed from before: exchanges to repeat, its own backlog, and that of its shared groups.
//!
//! Pages are read beside the workers. While the backlog is read nothing goes into the outbox, so that
//! nothing newer overtakes it; when there is no more the slot goes live again.

use std::collections::HashSet;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use tokio::task::JoinHandle;

use super::{Connection, End};
use crate::auth::Escaped;
use crate::broker::{Group, Mode};
use crate::codec::ReasonCode;
use crate::record::{Exchange, Lsn, RecipientNo, UnixMillis};
use crate::session::{Claim, Close, Delivery, Outgoing};
use crate::store::{StoreError, Stored, beside};

/// Messages that one page holds at most.
const PAGE: usize = 256;

/// Where the reading of the backlog is.
#[derive(Debug, Default)]
pub(super) struct BacklogReader {
    page: Option<PendingPage>,
    /// `None` while the slot is live, and before its backlog was looked at.
    pass: Option<Pass>,
    waits_for: Option<Lsn>,
}

/// The session's own backlog being read, from the oldest message until the slot is live.
#[derive(Debug)]
struct Pass {
    /// The report that has to be durable first: what it settles must not be read again. It may have been
    /// submitted before the pass began.
    report: Lsn,
    /// Read up to here.
    cursor: Lsn,
    /// Numbers that were in the client's hands when the pass began.
    in_hand: HashSet<Lsn, RandomState>,
}

/// A page on its way from the disk.
#[derive(Debug)]
struct PendingPage {
    purpose: Purpose,
    read: JoinHandle<Result<Vec<Stored>, StoreError>>,
}

#[derive(Debug)]
enum Purpose {
    /// Exchanges of an earlier connection: their PUBLISH is repeated.
    Resend(Exchange),
    /// The session's own backlog.
    Own(RecipientNo),
    /// A shared group's: the numbers that were fetched.
    Shared(Arc<Group>, RecipientNo, Vec<Lsn>),
}

impl BacklogReader {
    /// The number that has to be durable before there is more to read.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        self.waits_for
    }
}

impl Connection {
    /// Goes on reading what is owed: repeats first, then the session's own backlog, then what its shared groups
    /// could give to nobody. True when something has moved.
    pub(super) fn poll_backlog(
        &mut self,
        cx: &mut Context<'_>,
        mode: Mode,
        out: &mut Outgoing,
        now: UnixMillis,
    ) -> Result<bool, End> {
        self.backlog.waits_for = None;
        if let Some(page) = self.backlog.page.take() {
            return self.poll_page(cx, page, out, now);
        }
        if !self.session.has_window() {
            return Ok(false);
        }
        if let Some(exchange) = self.session.take_resend() {
            self.read_page(Purpose::Resend(exchange), exchange.owner, vec![exchange.lsn]);
            return Ok(true);
        }
        if self.session.has_resends() {
            return Ok(false);
        }
        match mode {
            Mode::Backlog => self.read_own(now),
            Mode::Live => self.read_shared(),
            Mode::Offline | Mode::Ended => Ok(false),
        }
    }

    fn poll_page(
        &mut self,
        cx: &mut Context<'_>,
        mut pending: PendingPage,
        out: &mut Outgoing,
        now: UnixMillis,
    ) -> Result<bool, End> {
        let page = match Pin::new(&mut pending.read).poll(cx) {
            Poll::Pending => {
                self.backlog.page = Some(pending);
                return Ok(false);
            }
            Poll::Ready(Ok(Ok(page))) => page,
            Poll::Ready(Ok(Err(error))) => {
                let client_id = Escaped(self.session.client_id());
                tracing::error!(%client_id, %error, "a backlog cannot be read");
                if let Purpose::Resend(exchange) = pending.purpose {
                    // One message that cannot be read must not keep the client out for ever.
                    self.session.abandon(exchange.packet_id);
                    return Ok(true);
                }
                return Err(cannot_read().into());
            }
            Poll::Ready(Err(_)) => return Err(cannot_read().into()),
        };
        match pending.purpose {
            // Nobody is owed it any more: its group is gone.
            Purpose::Resend(exchange) if page.is_empty() => self.session.abandon(exchange.packet_id),
            Purpose::Resend(exchange) => {
                for stored in page {
                    self.redeliver(exchange, delivery(stored, exchange.owner), out, now)?;
                }
            }
            Purpose::Own(owner) => {
                if let (Some(pass), Some(last)) = (&mut self.backlog.pass, page.last()) {
                    pass.cursor = last.lsn;
                }
                self.frames.extend(page.into_iter().map(|stored| delivery(stored, owner)));
            }
            Purpose::Shared(group, owner, numbers) => self.take_shared(&group, owner, &numbers, page),
        }
        Ok(true)
    }

    /// Reads the next page of the session's own backlog, or goes live.
    fn read_own(&mut self, now: UnixMillis) -> Result<bool, End> {
        let Some(durable) = self.session.durable() else { return Ok(false) };
        let Some(backlog) = self.slot.durable().map(|durable| Arc::clone(&durable.backlog)) else {
            return Ok(false);
        };
        let watermark = self.watermark;
        if self.backlog.pass.is_none() {
            self.report_all(now)?;
            let report = self.last_report;
            let in_hand = self.session.in_flight().filter(|claim| claim.owner == durable.recipient);
            let in_hand = in_hand.map(|claim| claim.lsn).collect();
            self.backlog.pass = Some(Pass { report, cursor: Lsn::ZERO, in_hand });
        }
        let Some(pass) = &mut self.backlog.pass else { return Ok(false) };
        if pass.report > watermark {
            self.backlog.waits_for = Some(pass.report);
            return Ok(false);
        }
        let mut numbers = Vec::new();
        loop {
            numbers.clear();
            backlog.after(pass.cursor, watermark, PAGE, &mut numbers);
            let Some(last) = numbers.last().copied() else { break };
            numbers.retain(|lsn| !pass.in_hand.contains(lsn));
            if !numbers.is_empty() {
                self.read_page(Purpose::Own(durable.recipient), durable.recipient, numbers);
                return Ok(true);
            }
            pass.cursor = last;
        }
        match self.slot.go_live(watermark) {
            Ok(()) => {
                self.backlog.pass = None;
                Ok(true)
            }
            Err(lsn) => {
                self.backlog.waits_for = Some(lsn);
                Ok(false)
            }
        }
    }

    /// Fetches what a shared group could give to nobody when it came: no more than the window takes, the rest
    /// is for other members.
    fn read_shared(&mut self) -> Result<bool, End> {
        let watermark = self.watermark;
        let max = self.session.window_left().min(PAGE);
        for group in self.slot.groups() {
            let Some(owner) = group.durable().map(|durable| durable.recipient) else { continue };
            let mut numbers = Vec::new();
            let waits_for = group.fetch(&self.slot, watermark, max, &mut numbers);
            if !numbers.is_empty() {
                self.read_page(Purpose::Shared(group, owner, numbers.clone()), owner, numbers);
                return Ok(true);
            }
            self.backlog.waits_for = [self.backlog.waits_for, waits_for].into_iter().flatten().min();
        }
        Ok(false)
    }

    /// Takes what was fetched. What did not fit into the page is for the next one, or for another member; all
    /// of it is when the client has unsubscribed meanwhile.
    fn take_shared(&mut self, group: &Arc<Group>, owner: RecipientNo, numbers: &[Lsn], page: Vec<Stored>) {
        let subscription = group.subscription_of(&self.slot);
        let is_left = |lsn: &Lsn| {
            subscription.is_none() || page.binary_search_by_key(lsn, |stored| stored.lsn).is_err()
        };
        group.put_back(&self.slot, numbers.iter().copied().filter(is_left));
        let Some(subscription) = subscription else { return };
        for stored in page {
            let mut delivery = delivery(stored, owner);
            delivery.qos = delivery.qos.min(subscription.options.qos);
            delivery.retain &= subscription.options.retain_as_published;
            delivery.subscription_ids = subscription.id.into_iter().collect();
            self.frames.push_back(delivery);
        }
    }

    fn read_page(&mut self, purpose: Purpose, owner: RecipientNo, numbers: Vec<Lsn>) {
        let store = self.context.broker.store.clone();
        let read = beside(move || store.read(owner, &numbers));
        self.backlog.page = Some(PendingPage { purpose, read });
    }
}

/// A message that was read back: its record has left the writer's queue.
fn delivery(stored: Stored, owner: RecipientNo) -> Delivery {
    Delivery {
        qos: stored.leg.qos,
        retain: stored.leg.retain,
        subscription_ids: stored.leg.subscription_ids,
        not_before: Lsn::ZERO,
        claim: Some(Claim { lsn: stored.lsn, owner, entry: None }),
        message: stored.message,
    }
}

fn cannot_read() -> Close {
    Close::because(ReasonCode::UnspecifiedError, "the backlog cannot be read")
}
