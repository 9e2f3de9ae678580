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
use crate::broker::{Fetch, Group, Mode};
use crate::codec::ReasonCode;
use crate::record::{Exchange, Lsn, RecipientNo, UnixMillis};
use crate::session::{Claim, Close, Delivery, Outgoing};
use crate::store::{Page, Store, StoreError, Stored, beside};

/// Messages that one page holds at most; few in tests, so that pages end everywhere.
const PAGE_MAX: usize = if cfg!(test) { 3 } else { 256 };

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
    in_hand: Arc<HashSet<Lsn, RandomState>>,
}

/// A page on its way from the disk.
#[derive(Debug)]
struct PendingPage {
    purpose: Purpose,
    read: JoinHandle<Result<Page, StoreError>>,
}

#[derive(Debug)]
enum Purpose {
    /// Exchanges of an earlier connection: their PUBLISH is repeated.
    Resend(Exchange),
    /// The session's own backlog.
    Own(RecipientNo),
    /// A shared group's.
    Shared(Arc<Group>, RecipientNo),
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
            let Exchange { owner, lsn, .. } = exchange;
            self.read_page(Purpose::Resend(exchange), move |store| store.read(owner, &[lsn]));
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
        let mut page = match Pin::new(&mut pending.read).poll(cx) {
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
            Purpose::Resend(exchange) if page.messages.is_empty() => self.session.abandon(exchange.packet_id),
            Purpose::Resend(exchange) => {
                for stored in page.messages {
                    self.redeliver(exchange, delivery(stored, exchange.owner), out, now)?;
                }
            }
            Purpose::Own(owner) => {
                self.slot.take_in_hand(&mut page);
                if let Some(pass) = &mut self.backlog.pass {
                    pass.cursor = page.cursor;
                }
                self.frames.extend(page.messages.into_iter().map(|stored| delivery(stored, owner)));
            }
            Purpose::Shared(group, owner) => self.take_shared(&group, owner, page),
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
            let in_hand = Arc::new(in_hand.map(|claim| claim.lsn).collect());
            self.backlog.pass = Some(Pass { report, cursor: Lsn::ZERO, in_hand });
        }
        let Some(pass) = &mut self.backlog.pass else { return Ok(false) };
        if pass.report > watermark {
            self.backlog.waits_for = Some(pass.report);
            return Ok(false);
        }
        if backlog.may_have(pass.cursor, watermark) {
            let (owner, cursor, in_hand) = (durable.recipient, pass.cursor, Arc::clone(&pass.in_hand));
            self.read_page(Purpose::Own(owner), move |store| {
                store.read_after(owner, (cursor, watermark), PAGE_MAX, |lsn| in_hand.contains(&lsn))
            });
            return Ok(true);
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
        let max = self.session.window_left().min(PAGE_MAX);
        for group in self.slot.groups() {
            match group.begin_fetch(&self.slot, watermark) {
                Fetch::Nothing => {}
                Fetch::WaitFor(lsn) => {
                    let waits_for = self.backlog.waits_for.map_or(lsn, |known| known.min(lsn));
                    self.backlog.waits_for = Some(waits_for);
                }
                Fetch::Read { recipient, after, in_hand } => {
                    self.read_page(Purpose::Shared(group, recipient), move |store| {
                        store.read_after(recipient, (after, watermark), max, |lsn| in_hand.contains(&lsn))
                    });
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// While messages wait here for the client or the socket, no page is taken: those who could take what is being
    /// read of a group must not wait with them.
    pub(super) fn let_others_fetch(&self) {
        if let Some(PendingPage { purpose: Purpose::Shared(group, ..), .. }) = &self.backlog.page {
            group.yield_fetch(&self.slot);
        }
    }

    /// Takes what was fetched, unless the client has unsubscribed meanwhile.
    fn take_shared(&mut self, group: &Group, owner: RecipientNo, page: Page) {
        let Some((subscription, taken)) = group.end_fetch(&self.slot, page) else { return };
        for stored in taken {
            let mut delivery = delivery(stored, owner);
            delivery.qos = delivery.qos.min(subscription.options.qos);
            delivery.retain &= subscription.options.retain_as_published;
            delivery.subscription_ids = subscription.id.into_iter().collect();
            self.frames.push_back(delivery);
        }
    }

    fn read_page(
        &mut self,
        purpose: Purpose,
        read: impl FnOnce(&Store) -> Result<Page, StoreError> + Send + 'static,
    ) {
        let store = self.context.broker.store.clone();
        let read = beside(move || read(&store));
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
