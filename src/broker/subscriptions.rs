//! SUBSCRIBE and UNSUBSCRIBE: into the index first, then into the store, and only then the answer.

use std::sync::Arc;

use super::matching::Target;
use super::retained::RetainedScan;
use super::{Broker, Mode, Slot, Subscription};
use crate::auth::{Rights, Subscribe};
use crate::codec::{Qos, ReasonCode};
use crate::record::{Change, Lsn, Record, SubscriptionRow};
use crate::session::SubscribeRequest;
use crate::store::SubmitError;
use crate::topic::SubscriptionFilter;

/// What became of a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Default)]
pub struct Subscribed {
    /// One for each filter.
    pub reasons: Vec<ReasonCode>,
    /// The answer may leave when this is durable.
    pub safe_at: Lsn,
    /// Retained messages to hand over after the answer.
    pub scans: Vec<RetainedScan>,
}

impl Broker {
    /// Enters subscriptions, one after the other [MQTT-3.8.4-5]. A filter that the session has already is
    /// replaced without a gap [MQTT-3.8.4-3].
    ///
    /// # Errors
    /// When the store has failed.
    pub fn subscribe(
        &self,
        slot: &Arc<Slot>,
        requests: Vec<Result<SubscribeRequest, ReasonCode>>,
        rights: &Rights,
    ) -> Result<Subscribed, SubmitError> {
        let (mut subscribed, mut changes) = (Subscribed::default(), Vec::new());
        for request in requests {
            let reason = match request.and_then(|request| self.may_subscribe(slot, request, rights)) {
                Ok(request) => {
                    self.enter(slot, &request, &mut subscribed)?;
                    let granted = granted(request.options.qos);
                    changes.extend(row(slot, request));
                    granted
                }
                Err(reason) => reason,
            };
            subscribed.reasons.push(reason);
        }
        self.submit_changes(changes, &mut subscribed)?;
        Ok(subscribed)
    }

    /// Removes subscriptions. What was matched before is still delivered [MQTT-3.10.4-3].
    ///
    /// # Errors
    /// When the store has failed.
    pub fn unsubscribe(
        &self,
        slot: &Arc<Slot>,
        filters: Vec<Result<SubscriptionFilter, ReasonCode>>,
    ) -> Result<Subscribed, SubmitError> {
        let (mut subscribed, mut changes) = (Subscribed::default(), Vec::new());
        for filter in filters {
            let reason = match filter {
                Ok(filter) if slot.lock().subscriptions.remove(&filter).is_some() => {
                    self.withdraw(slot, &filter);
                    self.metrics.subscriptions.decrement(1);
                    if let Some(durable) = slot.durable() {
                        changes.push(Change::Unsubscribed(durable.recipient, filter.to_string().into()));
                    }
                    ReasonCode::Success
                }
                Ok(_) => ReasonCode::NoSubscriptionExisted,
                Err(reason) => reason,
            };
            subscribed.reasons.push(reason);
        }
        self.submit_changes(changes, &mut subscribed)?;
        Ok(subscribed)
    }

    /// Takes all subscriptions of a session out of the index.
    pub(super) fn withdraw_all(&self, slot: &Arc<Slot>) {
        let subscriptions = std::mem::take(&mut slot.lock().subscriptions);
        subscriptions.keys().for_each(|filter| self.withdraw(slot, filter));
        self.metrics.subscriptions.decrement(subscriptions.len() as u64);
    }

    /// Puts a subscription that was found on disk into the index.
    pub(super) fn restore_subscription(&self, slot: &Arc<Slot>, row: &SubscriptionRow) {
        let Ok(filter) = SubscriptionFilter::parse(&row.filter, u16::MAX) else { return };
        let subscription = Subscription { options: row.options, id: row.id };
        // Refused only when the store has failed, and then nobody is served.
        let _ = self.insert(slot, &filter, subscription);
        slot.lock().subscriptions.insert(filter, subscription);
        self.metrics.subscriptions.increment(1);
    }

    fn may_subscribe(
        &self,
        slot: &Slot,
        request: SubscribeRequest,
        rights: &Rights,
    ) -> Result<SubscribeRequest, ReasonCode> {
        if rights.may_subscribe(&request.filter.filter) == Subscribe::Refused {
            return Err(self.auth.refused_subscription());
        }
        let subscriptions = &slot.lock().subscriptions;
        let is_new = !subscriptions.contains_key(&request.filter);
        if is_new && subscriptions.len() >= self.limits.subscriptions_per_session {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(request)
    }

    fn enter(
        &self,
        slot: &Arc<Slot>,
        request: &SubscribeRequest,
        subscribed: &mut Subscribed,
    ) -> Result<(), SubmitError> {
        let subscription = Subscription { options: request.options, id: request.id };
        let old = slot.lock().subscriptions.insert(request.filter.clone(), subscription);
        self.metrics.subscriptions.increment(u64::from(old.is_none()));
        // Into the index before the tree is scanned: what is published in between is found by one of both.
        let safe_at = self.insert(slot, &request.filter, subscription)?;
        subscribed.safe_at = safe_at.max(subscribed.safe_at);
        if slot.lock().mode == Mode::Ended {
            // It ended meanwhile, and what it left behind was taken out before this came in.
            self.withdraw_all(slot);
        }
        let scan = RetainedScan::for_subscription(&request.filter, subscription, old.is_none());
        subscribed.scans.extend(scan.filter(|_| self.limits.session.offer.retain));
        Ok(())
    }

    /// Gives the number to wait for.
    fn insert(
        &self,
        slot: &Arc<Slot>,
        filter: &SubscriptionFilter,
        subscription: Subscription,
    ) -> Result<Lsn, SubmitError> {
        if !filter.is_shared() {
            self.index.insert(&filter.filter, Target::Session(Arc::clone(slot)), subscription);
            return Ok(Lsn::ZERO);
        }
        let (group, safe_at) = self.join_group(&filter.to_string(), slot, subscription)?;
        self.index.insert(&filter.filter, Target::Group(group), subscription);
        Ok(safe_at)
    }

    fn withdraw(&self, slot: &Arc<Slot>, filter: &SubscriptionFilter) {
        if !filter.is_shared() {
            self.index.remove(&filter.filter, &Target::Session(Arc::clone(slot)));
            return;
        }
        let group = self.group(&filter.to_string());
        if self.leave_group(slot, &group) {
            self.index.remove(&filter.filter, &Target::Group(Arc::clone(&group)));
            self.close_group(&group);
        }
    }

    fn submit_changes(&self, changes: Vec<Change>, subscribed: &mut Subscribed) -> Result<(), SubmitError> {
        if !changes.is_empty() {
            subscribed.safe_at = self.store.submit(Record::of(changes))?.lsn;
        }
        Ok(())
    }
}

fn row(slot: &Slot, request: SubscribeRequest) -> Option<Change> {
    let filter = request.filter.to_string().into();
    let row = SubscriptionRow { filter, options: request.options, id: request.id };
    Some(Change::Subscribed(slot.durable()?.recipient, Box::new(row)))
}

fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
