//! From what was found on disk to a switchboard that can be reached.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::retained::Retained;
use super::slot::SlotWill;
use super::{Broker, DurableSlot, Slot};
use crate::record::{Change, ExchangeState, SubscriptionRow, UnixMillis};
use crate::store::{Recovered, SessionRow};
use crate::topic::TopicName;

impl Broker {
    pub(super) fn recover(&self, recovered: Recovered) {
        for (message, author) in recovered.retained {
            let retained = Retained { message, author };
            if let Ok(topic) = TopicName::parse(retained.message.topic(), u16::MAX) {
                self.retain(&mut self.retained_totals.lock(), &topic, &retained);
            }
        }
        for (name, recipient) in &recovered.groups {
            let group = self.group(name);
            group.set_durable(*recipient, self);
            self.watch(&group);
        }
        let has_groups = !recovered.groups.is_empty();
        let now = self.clock.now();
        let mut left = Vec::new();
        for (mut row, subscriptions) in recovered.sessions {
            if row.closed_at.is_none() {
                left.push(leave(&mut row, now));
            }
            let slot = self.restore_session(row, &subscriptions);
            if has_groups {
                self.restore_shared(&slot);
            }
        }
        self.submit_unawaited(left);
    }

    fn restore_session(&self, row: SessionRow, subscriptions: &[SubscriptionRow]) -> Arc<Slot> {
        let opened = row.opened;
        let durable =
            DurableSlot { recipient: opened.recipient, backlog: self.store.backlog(opened.recipient) };
        let slot = Arc::new(Slot::new(
            Arc::clone(&opened.client_id),
            self.new_id(),
            Some(durable),
            opened.expiry,
            &self.memory,
        ));
        let closed_at = row.closed_at.unwrap_or_else(|| self.clock.now());
        let expires = closed_at.plus(Duration::from_secs(opened.expiry.into()));
        {
            let mut inner = slot.lock();
            inner.epoch = opened.epoch;
            inner.seat_epoch = opened.epoch;
            inner.closed_at = Some(closed_at);
            inner.torn = row.torn;
            inner.opened = true;
            inner.will = opened.will.map(|record| {
                let due = closed_at.plus(Duration::from_secs(record.delay.into())).min(expires);
                let user_name = opened.user_name.clone();
                SlotWill { record, user_name, epoch: opened.epoch, due: Some(due) }
            });
            self.schedule(&slot, &mut inner);
        }
        subscriptions.iter().for_each(|row| self.restore_subscription(&slot, row));
        self.directory.insert(Arc::clone(&slot.client_id), Arc::clone(&slot));
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.watch(&slot);
        slot
    }

    /// QoS 2 that a member of a group has begun stays with it [MQTT-4.8.2-4].
    fn restore_shared(&self, slot: &Arc<Slot>) {
        let Some(recipient) = slot.durable().map(|durable| durable.recipient) else { return };
        let Ok(progress) = self.store.progress(recipient) else { return };
        for exchange in progress.exchanges.values() {
            let begun = exchange.state != ExchangeState::AwaitingPuback;
            if begun
                && exchange.owner != recipient
                && let Some(group) = self.group_by_number(exchange.owner)
            {
                group.holds(slot, exchange.lsn);
            }
        }
    }
}

/// A session that was online at the end counts as disconnected now: its will and its expiry begin. That is
/// written down, so that the next start does not let them begin anew.
fn leave(row: &mut SessionRow, now: UnixMillis) -> Change {
    row.closed_at = Some(now);
    row.torn = true;
    let opened = &row.opened;
    Change::SessionClosed {
        recipient: opened.recipient,
        epoch: opened.epoch,
        at: now,
        expiry: opened.expiry,
        keep_will: true,
        torn: true,
    }
}
