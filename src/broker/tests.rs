//! Interleavings that were broken once, played step by step.

mod fetching;
mod give_up;
mod interleavings;
mod rules;
mod user_name;

use std::collections::BTreeMap;
use std::time::Duration;

use super::publish::Source;
use super::slot::Touched;
use super::*;
use crate::codec::{
    Connect, PacketId, Publish, PublishProperties, Qos, ReasonCode, SubscribeOptions, Version,
};
use crate::config::{Overflow, ShareStrategy, SharedConfig};
use crate::record::{
    Change, DeadLetter, DeadLetterReason, Lsn, Message, MessageParts, UnixMillis, WillRecord,
};
use crate::session::{Offer, Receipt, SubscribeRequest, Terms};
use crate::store::StoreSettings;
use crate::store::tests::{Disk, open_on};
use crate::topic::{SubscriptionFilter, TopicName};

/// As [`LIMITS`].
const QUEUE: QueueConfig =
    QueueConfig { messages: 1000, bytes: 1 << 20, age: None, overflow: Overflow::DropNewest };

/// Limits that no test meets by accident; those of other rooms use them, too.
pub(crate) const LIMITS: BrokerLimits = BrokerLimits {
    session: SessionLimits {
        receive_maximum: 10,
        inflight: 10,
        topic_alias_maximum: 0,
        topic_levels: 10,
        packet_size: 1 << 20,
        keep_alive_max: 0,
        session_expiry: 3600,
        offer: Offer::EVERYTHING,
        response_information: None,
    },
    memory: 1 << 30,
    outbox_bytes: 1 << 20,
    queue: QUEUE,
    merge_overlapping: true,
    sessions: 1000,
    subscriptions_per_session: 100,
    retained_messages: 100,
    retained_bytes: 1 << 20,
    dead_letters: 1000,
    dead_letter_bytes: 1 << 26,
    letters: DeadLetterRules::NONE,
    takeover_timeout: Duration::from_secs(1),
    shared: SharedConfig { strategy: ShareStrategy::RoundRobin, groups: BTreeMap::new() },
    checks_retained_source: false,
    clock_grace: Duration::from_hours(1),
};

/// Every queue is full.
const NO_ROOM: QueueConfig = QueueConfig { messages: 0, ..QUEUE };

/// A store that commits at once.
pub(crate) const STORE: StoreSettings = StoreSettings {
    cache_size: 1 << 20,
    commit_interval: Duration::ZERO,
    batch_bytes_max: 1 << 20,
    queue_bytes_max: 1 << 20,
    compact_at_start: false,
    recent_max: StoreSettings::RECENT_MAX,
};

struct World {
    broker: Arc<Broker>,
}

struct Client {
    attachment: Attachment,
    link: Arc<Link>,
}

impl World {
    fn new() -> Self {
        Self::with(BrokerLimits { outbox_bytes: 4096, ..LIMITS })
    }

    fn with(limits: BrokerLimits) -> Self {
        Self::on(&Disk::default(), limits, &STORE)
    }

    /// With what is on this disk.
    fn on(disk: &Disk, limits: BrokerLimits, settings: &StoreSettings) -> Self {
        let (store, recovered) = open_on(disk, settings).unwrap();
        let auth = Arc::new(Authenticator::load(Default::default()).unwrap());
        let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), limits);
        Self { broker }
    }

    /// A durable session that reads its backlog no more.
    async fn live(&self, client_id: &str) -> Client {
        let client = self.attach(client_id).await;
        client.attachment.slot.go_live(self.broker.store.watermark()).unwrap();
        client
    }

    async fn attach(&self, client_id: &str) -> Client {
        self.attach_with(Connect::new(Version::V5, client_id), None).await
    }

    /// The session lasts ten minutes.
    async fn attach_with(&self, connect: Connect<'_>, will: Option<WillRecord>) -> Client {
        let connect = Connect { session_expiry: Some(600), ..connect };
        self.try_attach(connect, will).await.unwrap_or_else(|reason| panic!("{reason:?}"))
    }

    async fn try_attach(&self, connect: Connect<'_>, will: Option<WillRecord>) -> Result<Client, ReasonCode> {
        let terms = Terms::agree(&connect, &LIMITS.session, String::new).unwrap();
        let link = Arc::new(Link::default());
        let request = AttachRequest { terms: &terms, user_name: None, will, link: Arc::clone(&link) };
        Ok(Client { attachment: self.broker.attach(request).await?, link })
    }

    fn leave(&self, client: &Client, departure: Departure) {
        self.broker.detach(&client.attachment.slot, &client.link, departure);
    }

    fn subscribe(&self, client: &Client, filter: &str) {
        self.subscribe_at(Qos::AtLeastOnce, client, filter);
    }

    fn subscribe_at(&self, qos: Qos, client: &Client, filter: &str) -> Vec<RetainedScan> {
        let filter = SubscriptionFilter::parse(filter, 10).unwrap();
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let request = SubscribeRequest { filter, options, id: None };
        let rights = self.rights();
        self.broker.subscribe(&client.attachment.slot, vec![Ok(request)], &rights).unwrap().scans
    }

    fn unsubscribe(&self, client: &Client, filter: &str) {
        let filter = SubscriptionFilter::parse(filter, 10).unwrap();
        self.broker.unsubscribe(&client.attachment.slot, vec![Ok(filter)]).unwrap();
    }

    fn rights(&self) -> crate::auth::Rights {
        let identity = self.broker.auth.authenticate(([127, 0, 0, 1], 1).into(), None, None).unwrap();
        self.broker.auth.rights(&identity, "p").unwrap()
    }

    /// Publishes with QoS 1 and waits until that is safe.
    async fn publish(&self, client: &Client, payload: &[u8]) -> Lsn {
        let receipt = self.submit(client, payload, false);
        let Receipt::SafeWith(entry, ReasonCode::Success) = receipt else { panic!("{receipt:?}") };
        let lsn = entry.lsn;
        self.broker.store.durable(lsn).await.unwrap();
        lsn
    }

    fn submit(&self, client: &Client, payload: &[u8], retain: bool) -> Receipt {
        self.submit_at(Qos::AtLeastOnce, client, payload, retain)
    }

    fn submit_at(&self, qos: Qos, client: &Client, payload: &[u8], retain: bool) -> Receipt {
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic: "a",
            packet_id: PacketId::new(1).filter(|_| qos > Qos::AtMostOnce),
            properties: PublishProperties::default(),
            payload,
        };
        let rights = self.rights();
        let source =
            Source { slot: &client.attachment.slot, durable: None, rights: &rights, user_name: None };
        let topic = TopicName::parse("a", 10).unwrap();
        let now = self.broker.clock.now();
        self.broker.publish(&mut PublishContext::default(), &source, &publish, &topic, now)
    }

    fn fetch(&self, group: &Group, client: &Client) -> Vec<Lsn> {
        let (slot, durable) = (&client.attachment.slot, self.broker.store.watermark());
        let Fetch::Read { recipient, after, in_hand } = group.begin_fetch(slot, durable) else {
            return Vec::new();
        };
        let skip = |lsn: Lsn| in_hand.contains(&lsn);
        let page = self.broker.store.read_after(recipient, (after, durable), 10, skip).unwrap();
        let (_, taken) = group.end_fetch(slot, page).unwrap();
        taken.into_iter().map(|stored| stored.lsn).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.broker.store.close();
    }
}

#[tokio::test]
async fn what_one_member_has_settled_no_other_fetches_before_the_disk_knows() {
    let world = World::new();
    let (one, other) = (world.attach("one").await, world.attach("other").await);
    world.subscribe(&one, "$share/g/a");
    world.subscribe(&other, "$share/g/a");
    let lsn = world.publish(&one, b"x").await;
    let group = world.broker.group("$share/g/a");
    assert_eq!(world.fetch(&group, &one), [lsn]);
    group.settling(lsn);
    assert_eq!(world.fetch(&group, &other), [], "it is in the queue until its report is durable");
}

#[tokio::test]
async fn one_member_reads_at_a_time_and_what_it_does_not_take_goes_to_another() {
    let world = World::new();
    let (one, other) = (world.attach("one").await, world.attach("other").await);
    world.subscribe(&one, "$share/g/a");
    world.subscribe(&other, "$share/g/a");
    let (first, second) = (world.publish(&one, b"1").await, world.publish(&one, b"2").await);
    let group = world.broker.group("$share/g/a");
    assert_eq!(world.fetch(&group, &one), [first, second]);
    assert_eq!(world.fetch(&group, &other), []);
    // Nothing else is in the queue: the group counts as up to date, until something comes back.
    let (slot, mut touched) = (&one.attachment.slot, Touched::default());
    group.let_go(slot, &[first], &mut touched);
    let durable = world.broker.store.watermark();
    assert!(matches!(group.begin_fetch(slot, durable), Fetch::Read { .. }));
    assert_eq!(world.fetch(&group, &other), [], "one reads it already");
    group.let_go(slot, &[first], &mut touched);
    assert_eq!(world.fetch(&group, &other), [second]);
}

/// It was left out when the reading began, and a cursor that did not move said nothing of it.
#[tokio::test]
async fn what_is_given_back_while_another_member_reads_is_read_again() {
    let world = World::new();
    let (one, other) = (world.attach("one").await, world.attach("other").await);
    [&one, &other].into_iter().for_each(|client| world.subscribe(client, "$share/g/a"));
    let first = world.publish(&one, b"1").await;
    let group = world.broker.group("$share/g/a");
    // In the hand of one, from before a restart.
    group.holds(&one.attachment.slot, first);
    let second = world.publish(&one, b"2").await;
    let durable = world.broker.store.watermark();
    let Fetch::Read { recipient, after, in_hand } = group.begin_fetch(&other.attachment.slot, durable) else {
        panic!("there is something to read")
    };
    let skip = |lsn: Lsn| in_hand.contains(&lsn);
    let page = world.broker.store.read_after(recipient, (after, durable), 10, skip).unwrap();
    group.let_go(&one.attachment.slot, &[], &mut Touched::default());
    let (_, taken) = group.end_fetch(&other.attachment.slot, page).unwrap();
    assert!(taken.iter().map(|stored| stored.lsn).eq([second]));
    assert_eq!(world.fetch(&group, &other), [first]);
}

#[tokio::test]
async fn a_message_for_a_group_that_does_not_fit_is_not_lost_in_the_hand_of_a_member() {
    let world = World::new();
    let (one, other) = (world.live("one").await, world.attach("other").await);
    world.subscribe(&one, "$share/g/a");
    world.publish(&one, &[1; 1024]).await;
    let large = world.publish(&one, &[2; 4096]).await;
    let slot = &one.attachment.slot;
    assert_eq!(slot.lock().mode, Mode::Live, "its own backlog does not have the message");
    world.subscribe(&other, "$share/g/a");
    assert_eq!(world.fetch(&world.broker.group("$share/g/a"), &other), [large]);
}

/// It has not read its backlog yet, and QoS 0 is in none.
#[tokio::test]
async fn a_member_that_has_just_come_back_gets_what_its_group_does_not_store() {
    let world = World::new();
    let one = world.attach("one").await;
    world.subscribe(&one, "$share/g/a");
    world.submit_at(Qos::AtMostOnce, &one, b"now or never", false);
    world.publish(&one, b"stored").await;
    let mut frames = std::collections::VecDeque::new();
    one.attachment.slot.take_frames(&mut frames, 0);
    assert!(frames.iter().map(|frame| frame.message.payload()).eq([b"now or never"]));
}

/// An operator ends a session whose next connection is just being let in.
#[tokio::test]
async fn what_was_discarded_is_not_opened_again() {
    let world = World::new();
    let client = world.attach("one").await;
    world.broker.end_session(&client.attachment.slot);
    let connect = Connect { session_expiry: Some(600), ..Connect::new(Version::V5, "one") };
    let terms = Terms::agree(&connect, &LIMITS.session, String::new).unwrap();
    let request = AttachRequest { terms: &terms, user_name: None, will: None, link: Arc::default() };
    let before = world.broker.store.last_submitted();
    let opened = world.broker.open(&client.attachment, &request, false).await;
    assert_eq!(opened.unwrap_err(), ReasonCode::ServerBusy);
    assert_eq!(
        world.broker.store.last_submitted(),
        before,
        "a session row that comes back at the next start"
    );
}

/// The seat is given away last: what the next connection has in hand was taken for what the old one left.
#[tokio::test]
async fn a_connection_that_gives_back_what_it_has_gets_nothing_more_and_keeps_its_seat() {
    let world = World::new();
    let (one, other) = (world.live("one").await, world.live("other").await);
    [&one, &other].into_iter().for_each(|client| world.subscribe(client, "$share/g/a"));
    one.attachment.slot.quiet(&other.link);
    one.attachment.slot.quiet(&one.link);
    assert!(one.attachment.slot.is_online());
    for payload in [b"1", b"2", b"3"] {
        world.publish(&other, payload).await;
    }
    let mut frames = std::collections::VecDeque::new();
    other.attachment.slot.take_frames(&mut frames, 0);
    assert_eq!(frames.len(), 3);
    world.leave(&one, Departure::default());
    assert!(!one.attachment.slot.is_online());
}

#[tokio::test]
async fn who_leaves_a_group_before_it_acknowledges_keeps_nothing_for_ever() {
    let world = World::new();
    let (one, other) = (world.live("one").await, world.attach("other").await);
    world.subscribe(&one, "$share/g/a");
    world.subscribe(&other, "$share/g/a");
    let lsn = world.publish(&other, b"x").await;
    world.unsubscribe(&one, "$share/g/a");
    let groups = one.attachment.slot.groups();
    let group = world.broker.group("$share/g/a");
    assert_eq!(world.fetch(&group, &other), [], "one may still acknowledge it");
    let mut touched = Touched::default();
    world.leave(&one, Departure::default());
    groups.iter().for_each(|group| group.let_go(&one.attachment.slot, &[], &mut touched));
    assert_eq!(touched.links.len(), 1, "the other one is told");
    assert_eq!(world.fetch(&group, &other), [lsn]);
}

#[tokio::test]
async fn who_joins_while_the_last_member_leaves_gets_a_group_that_lives() {
    let world = World::new();
    let (one, other) = (world.live("one").await, world.live("other").await);
    world.subscribe(&one, "$share/g/a");
    let closing = world.broker.group("$share/g/a");
    assert!(closing.leave(&one.attachment.slot));
    world.subscribe(&other, "$share/g/a");
    world.broker.close_group(&closing);
    world.publish(&one, b"x").await;
    let mut frames = Default::default();
    other.attachment.slot.take_frames(&mut frames, 0);
    assert_eq!(frames.len(), 1);
}

#[tokio::test]
async fn a_torn_session_stays_torn_until_a_connection_has_served_it() {
    let world = World::new();
    let first = world.attach("c").await;
    world.leave(&first, Departure { torn: true, ..Departure::default() });
    let second = world.attach("c").await;
    assert!(second.attachment.torn);
    // Its CONNACK could not be written.
    world.leave(&second, Departure { torn: second.attachment.torn, ..Departure::default() });
    let third = world.attach("c").await;
    assert!(third.attachment.torn);
    world.leave(&third, Departure::default());
    assert!(!world.attach("c").await.attachment.torn);
}

#[tokio::test]
async fn a_client_that_comes_and_goes_has_one_timer() {
    let world = World::new();
    for _ in 0..5 {
        let client = world.attach("c").await;
        world.leave(&client, Departure::default());
    }
    assert_eq!(world.broker.timers.len(), 1);
    world.broker.delete_session("c");
    assert_eq!(world.broker.timers.len(), 0);
}

#[tokio::test]
async fn who_comes_in_after_all_were_told_to_leave_is_told_too() {
    let world = World::new();
    world.broker.evict_all(ReasonCode::ServerShuttingDown);
    let late = world.attach("late").await;
    assert_eq!(late.link.eviction(), Some(ReasonCode::ServerShuttingDown));
}

#[tokio::test]
async fn who_comes_in_while_everybody_is_sent_away_is_sent_away_too() {
    let world = World::new();
    let early = world.live("early").await;
    let redirect = RedirectConfig { to: "other.example".into(), permanent: false };
    world.broker.set_redirect(Some(redirect));
    let late = world.attach("late").await;
    for client in [&early, &late] {
        assert_eq!(client.link.eviction(), Some(ReasonCode::UseAnotherServer));
    }
    world.broker.set_redirect(None);
    assert_eq!(world.attach("later").await.link.eviction(), None);
}

#[tokio::test]
async fn a_session_with_a_will_ends_also_when_the_disk_is_nearly_full() {
    let world = World::new();
    let watcher = world.attach("watcher").await;
    world.subscribe(&watcher, "a");
    let client = world.attach("c").await;
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: Default::default(),
        expires_at: UnixMillis::NEVER,
        topic: "a",
        properties: &[],
        payload: b"gone",
        publisher: "c",
    };
    let message = Message::new(&parts, &mut Vec::new());
    let record = WillRecord { message, delay: 0, message_expiry: None };
    let will = slot::SlotWill { record, user_name: None, epoch: Default::default(), due: None };
    client.attachment.slot.lock().will = Some(will);
    world.broker.store.set_disk_full(true);
    world.leave(&client, Departure { expiry: Some(0), ..Departure::default() });
    let last = world.broker.store.submit(Default::default()).unwrap().lsn;
    world.broker.store.durable(last).await.unwrap();
    assert_eq!(watcher.attachment.slot.durable().unwrap().backlog.count(), 1);
}

#[tokio::test]
async fn expired_retained_messages_go_when_a_scan_meets_them() {
    let world = World::new();
    let one = world.live("one").await;
    let mut touched = Touched::default();
    assert!(world.broker.route_will(retained_message(UnixMillis(2)), None, Vec::new(), &mut touched));
    assert_eq!(world.broker.retained_totals.lock().messages, 1);
    world.subscribe(&one, "a");
    let filter = SubscriptionFilter::parse("a", 10).unwrap();
    let subscription = Subscription { options: SubscribeOptions::default(), id: None };
    let scan = || RetainedScan::for_subscription(&filter, subscription, true).unwrap();
    let mut context = PublishContext::default();
    let now = world.broker.clock.now();
    world.broker.send_retained(&one.attachment.slot, scan(), now, |_| true, &mut context).unwrap();
    assert_eq!(world.broker.retained_totals.lock().messages, 0, "it counts against no limit any more");
    let mut frames = Default::default();
    one.attachment.slot.take_frames(&mut frames, 0);
    assert!(frames.is_empty());
}

#[tokio::test]
async fn refuse_is_all_or_nothing() {
    let limits = BrokerLimits { queue: NO_ROOM, dead_letters: 0, ..LIMITS };
    let world = World::with(limits);
    let (away, here) = (world.live("away").await, world.attach("here").await);
    world.subscribe(&away, "a");
    world.subscribe(&here, "a");
    let topic = TopicName::parse("a", 10).unwrap();
    let receipt = world.submit(&here, b"x", true);
    assert!(matches!(receipt, Receipt::Refused(ReasonCode::QuotaExceeded)));
    assert!(world.broker.retained.get(&topic).is_none(), "what is refused is not retained");
    for client in [&away, &here] {
        let mut frames = Default::default();
        client.attachment.slot.take_frames(&mut frames, 0);
        assert!(frames.is_empty(), "what is refused is delivered to nobody");
    }
}

#[tokio::test]
async fn a_will_goes_through_when_neither_queue_nor_dead_letters_have_room() {
    let world = World::with(BrokerLimits { queue: NO_ROOM, dead_letters: 0, ..LIMITS });
    let away = world.live("away").await;
    world.subscribe(&away, "a");
    let ended = Change::Discarded(away.attachment.slot.durable().unwrap().recipient);
    let mut touched = Touched::default();
    let message = retained_message(UnixMillis::NEVER);
    assert!(
        world.broker.route_will(message, None, vec![ended], &mut touched),
        "the end of a session is never refused"
    );
    assert_eq!(world.broker.retained_totals.lock().messages, 1);
}

#[tokio::test]
async fn a_replayed_letter_is_one_copy_for_the_one_it_was_for() {
    let world = World::with(BrokerLimits { merge_overlapping: false, ..LIMITS });
    let (addressee, other) = (world.attach("addressee").await, world.attach("other").await);
    for client in [&addressee, &other] {
        ["a", "+", "#"].into_iter().for_each(|filter| world.subscribe(client, filter));
    }
    let (for_whom, message) = (addressee.attachment.slot.addressee(), retained_message(UnixMillis::NEVER));
    let letter = DeadLetter::new(DeadLetterReason::QueueFull, for_whom, message, UnixMillis(1));
    let safe_at = world.broker.owe_again(Lsn(1), &letter, &Replay::default()).unwrap();
    world.broker.store.durable(safe_at).await.unwrap();
    let owed = |client: &Client| client.attachment.slot.durable().unwrap().backlog.count();
    assert_eq!((owed(&addressee), owed(&other)), (1, 0));
}

fn retained_message(expires_at: UnixMillis) -> Message {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: true,
        published_at: UnixMillis(1),
        expires_at,
        topic: "a",
        properties: &[],
        payload: b"x",
        publisher: "",
    };
    Message::new(&parts, &mut Vec::new())
}

/// [disk_full_recovers]
#[tokio::test]
async fn a_full_disk_takes_no_new_durable_session_and_gives_back_those_it_has() {
    let world = World::new();
    let known = world.attach("known").await;
    world.leave(&known, Departure::default());
    world.broker.store.set_disk_full(true);
    let attach = |client_id, session_expiry| {
        let session_expiry = Some(session_expiry);
        world.try_attach(Connect { session_expiry, ..Connect::new(Version::V5, client_id) }, None)
    };
    assert_eq!(attach("new", 600).await.err(), Some(ReasonCode::QuotaExceeded));
    assert!(attach("passing", 0).await.is_ok());
    assert!(attach("known", 600).await.is_ok());
    world.broker.store.set_disk_full(false);
    assert!(attach("new", 600).await.is_ok());
}
