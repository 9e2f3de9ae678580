//! The rules that keep the promise, as far as the switchboard can show them. Names are the design's.
//!
//! Interleavings are forced by doing one side's steps one by one, or by a lock that the test holds until everyone
//! else has come to it.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::Instant;

use super::super::matching::Matches;
use super::super::publish::Routed;
use super::*;
use crate::record::{Record, SubscriptionIds};
use crate::session::{Claim, Delivery, Outgoing, Session};
use crate::store::tests::owed;

/// Each record has a commit of its own, so that a crash may come between any two.
const ONE_BY_ONE: StoreSettings = StoreSettings { batch_bytes_max: 1, ..STORE };

impl World {
    /// Waits until everything that was submitted is on disk, or never will be.
    async fn quiet(&self) {
        let _ = self.broker.store.durable(self.broker.store.last_submitted()).await;
    }

    /// Whom a message to "a" is for at this moment.
    fn matches(&self) -> Matches {
        let mut matches = Matches::default();
        matches.find(&self.broker, &TopicName::parse("a", 10).unwrap(), None);
        matches
    }

    /// Routes a message to those who were found before.
    async fn route(&self, matches: &Matches, payload: &[u8]) -> Lsn {
        let receipt = self.broker.route(matches, Routed::of(message(payload)), &mut Touched::default());
        let Receipt::SafeWith(entry, _) = receipt else { panic!("{receipt:?}") };
        self.quiet().await;
        entry.lsn
    }

    fn owed(&self, client: &Client) -> Vec<Lsn> {
        owed(&self.broker.store, client.attachment.slot.durable().unwrap().recipient)
    }

    /// What the store owes and the session's connection has not read, with nothing newer to come.
    fn read_backlog(&self, client: &Client) -> Vec<Lsn> {
        let owed = self.owed(client);
        client.attachment.slot.go_live(self.broker.store.watermark()).unwrap();
        owed
    }
}

fn message(payload: &[u8]) -> Message {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1),
        expires_at: UnixMillis::NEVER,
        topic: "a",
        properties: &[],
        payload,
        publisher: "p",
    };
    Message::new(&parts, &mut Vec::new())
}

/// Takes what is in the outbox: payloads, and whether each is sent as a retained message.
fn frames(client: &Client) -> Vec<(Vec<u8>, bool)> {
    let mut frames = VecDeque::new();
    client.attachment.slot.take_frames(&mut frames, 0);
    frames.iter().map(|frame| (frame.message.payload().to_vec(), frame.retain)).collect()
}

fn frame_numbers(client: &Client) -> (Vec<Lsn>, Mode) {
    let mut frames = VecDeque::new();
    let mode = client.attachment.slot.take_frames(&mut frames, 0);
    (frames.into_iter().filter_map(|frame| frame.claim).map(|claim| claim.lsn).collect(), mode)
}

/// Rule 3. A publisher has found whom its message is for, and before it goes on, the client comes back, or comes
/// back with a new session. The leg is valid for the session that was found, and for no other. That the epoch
/// fences what a connection says, the store shows: `an_older_epoch_has_no_say`.
#[tokio::test]
async fn publish_races_resume() {
    let world = World::new();
    let first = world.live("c").await;
    world.subscribe(&first, "a");

    let found = world.matches();
    world.leave(&first, Departure::default());
    let second = world.attach("c").await;
    let lsn = world.route(&found, b"for the session").await;
    assert_eq!(world.read_backlog(&second), [lsn]);

    let found = world.matches();
    let connect = Connect { clean_start: true, ..Connect::new(Version::V5, "c") };
    world.leave(&second, Departure::default());
    let third = world.attach_with(connect, None).await;
    world.subscribe(&third, "a");
    world.route(&found, b"void").await;
    assert_eq!((world.owed(&third), frames(&third)), (vec![], vec![]));
    assert_eq!(world.broker.store.messages(), (0, 0), "nothing is kept for a session that is gone");
}

/// Rule 11. The first frame that does not fit sends the session to its backlog, and nothing enters the outbox until
/// everything that was pushed was read; a push that comes after that makes no second one.
#[tokio::test]
async fn no_overtaking_on_mode_switch() {
    let world = World::new();
    let client = world.live("c").await;
    let slot = &client.attachment.slot;
    world.subscribe(&client, "a");
    let first = world.publish(&client, &[1; 3000]).await;
    let _large = world.publish(&client, &[2; 3000]).await;
    let _would_fit = world.publish(&client, b"3").await;
    assert_eq!(frame_numbers(&client), (vec![first], Mode::Backlog));
    // There is room again, and still it stands behind what is on disk.
    world.publish(&client, b"4").await;
    assert_eq!(frame_numbers(&client), (vec![], Mode::Backlog));

    let read_up_to = world.broker.store.watermark();
    let late = world.publish(&client, b"5").await;
    assert_eq!(slot.go_live(read_up_to), Err(late), "it was not read");
    assert_eq!(slot.go_live(world.broker.store.watermark()), Ok(()));
    let delivery = |lsn| Delivery {
        message: message(b"5"),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: SubscriptionIds::new(),
        not_before: Lsn::ZERO,
        claim: Some(Claim { lsn, owner: slot.durable().unwrap().recipient, entry: None }),
    };
    slot.push(delivery(late), 4096, &mut Touched::default());
    assert_eq!(frame_numbers(&client), (vec![], Mode::Live), "who pushes late finds it read");
    let newer = world.publish(&client, b"6").await;
    assert_eq!(frame_numbers(&client), (vec![newer], Mode::Live));

    world.leave(&client, Departure::default());
    world.publish(&client, b"7").await;
    let back = world.attach("c").await;
    world.publish(&client, b"8").await;
    assert_eq!(frame_numbers(&back), (vec![], Mode::Backlog));
    assert_eq!(world.read_backlog(&back).len(), 8, "nobody has settled any");
}

/// Rule 15, the publisher's side: it changes the tree before it matches, so that whoever comes while it does is
/// matched.
#[tokio::test]
async fn retained_scan_race() {
    for _ in 0..20 {
        let world = World::new();
        let (publisher, late) = (world.attach("p").await, world.live("late").await);
        world.submit(&publisher, b"old", true);
        let filter = SubscriptionFilter::parse("a", 10).unwrap().filter;
        let ((looks, looking), (leaves, leaving)) = (mpsc::channel(), mpsc::channel::<()>());
        std::thread::scope(|scope| {
            let (world, publisher) = (&world, &publisher);
            scope.spawn(move || {
                world.broker.retained.scan(&filter, None, 1, |_, _| {
                    looks.send(()).unwrap();
                    leaving.recv().is_ok()
                })
            });
            looking.recv().unwrap();
            scope.spawn(move || world.submit(publisher, b"new", true));
            while world.broker.retained_totals.try_lock().is_some() {
                std::thread::yield_now();
            }
            // It waits for the tree. Who comes now may see what is old there, and has to hear of what is new.
            world.subscribe(&late, "a");
            leaves.send(()).unwrap();
        });
        assert_eq!(frames(&late), [(b"new".to_vec(), false)]);
    }
}

/// Rule 15, the subscriber's side: what a scan finds is in the outbox before anything newer. The scan pushes under
/// the tree's lock, in place of the subscriber's task (ADR 3).
#[tokio::test]
async fn what_a_scan_finds_is_not_overtaken() {
    let world = World::new();
    let (publisher, client) = (world.attach("p").await, world.live("c").await);
    world.submit(&publisher, b"old", true);
    let scan = world.subscribe_at(Qos::AtMostOnce, &client, "a").pop().unwrap();
    world.quiet().await;
    let before = world.broker.store.last_submitted();
    let (looks, looking) = mpsc::channel();
    std::thread::scope(|scope| {
        let (world, slot) = (&world, &client.attachment.slot);
        // The scan has the tree's lock while it waits for the slot's.
        let outbox = slot.lock();
        scope.spawn(move || {
            let now = world.broker.clock.now();
            let look = |_: &TopicName<'_>| looks.send(()).is_ok();
            world.broker.send_retained(slot, scan, now, look, &mut PublishContext::default()).unwrap();
        });
        looking.recv().unwrap();
        scope.spawn(|| world.submit(&publisher, b"new", true));
        let patience = Instant::now() + Duration::from_millis(50);
        while world.broker.store.last_submitted() == before && Instant::now() < patience {
            std::thread::yield_now();
        }
        assert_eq!(world.broker.store.last_submitted(), before, "the publish has passed the scan");
        drop(outbox);
    });
    assert_eq!(frames(&client), [(b"old".to_vec(), true), (b"new".to_vec(), false)]);
}

/// A member of a group, as its connection has it.
struct Member {
    client: Client,
    session: Session,
}

impl Member {
    /// Takes what is in the outbox, and has everything reported that has to be before it is sent.
    async fn take(&mut self, world: &World) -> Vec<Lsn> {
        let (mut frames, mut out) = (VecDeque::new(), Outgoing::default());
        self.client.attachment.slot.take_frames(&mut frames, 0);
        let numbers = frames.iter().filter_map(|frame| frame.claim.as_ref()).map(|claim| claim.lsn).collect();
        for mut frame in frames {
            frame.claim.iter_mut().for_each(|claim| claim.entry = None);
            self.session.deliver(world.broker.clock.now(), frame, &mut out);
        }
        if let Some(delta) = self.session.take_report() {
            let report = Record::of([Change::Progress(Box::new(delta))]);
            self.session.reported(world.broker.store.submit(report).unwrap().lsn);
        }
        world.quiet().await;
        numbers
    }

    fn leave(&self, world: &World) {
        let Client { attachment, link } = &self.client;
        let (slot, mut context) = (&attachment.slot, PublishContext::default());
        world.broker.release_shared(slot, link, &slot.groups(), &self.session, &mut context);
        world.leave(&self.client, Departure::default());
        context.wake();
    }
}

async fn member(world: &World, client_id: &str) -> Member {
    let client = world.live(client_id).await;
    world.subscribe_at(Qos::ExactlyOnce, &client, "$share/g/a");
    let connect = Connect { session_expiry: Some(600), ..Connect::new(Version::V5, client_id) };
    let terms = Terms::agree(&connect, &LIMITS.session, String::new).unwrap();
    let session = Session::new(&terms, client.attachment.durable, None, false, world.broker.clock.now());
    Member { client, session }
}

/// A member has a message of QoS 1 in hand and one of QoS 2 that has begun; it leaves, and its session expires. The
/// disk is gone from the n-th sync of that on. Gives the number of the one of QoS 1, and what the disk has.
async fn a_member_that_expires(n: u64) -> (Lsn, Disk, bool) {
    let disk = Disk::default();
    let world = World::on(&disk, LIMITS, &ONE_BY_ONE);
    let publisher = world.attach("p").await;
    // There is another one, who is away.
    member(&world, "next").await.leave(&world);
    let mut member = member(&world, "one").await;
    let at_least_once = world.publish(&publisher, b"1").await;
    world.submit_at(Qos::ExactlyOnce, &publisher, b"2", false);
    world.quiet().await;
    assert_eq!(member.take(&world).await.len(), 2);
    member.leave(&world);
    let next = world.attach("next").await;
    assert_eq!(world.fetch(&world.broker.group("$share/g/a"), &next), [at_least_once]);
    world.leave(&next, Departure::default());
    world.quiet().await;
    disk.crash_at_sync(n);
    let later = world.broker.clock.now().plus(Duration::from_secs(601));
    world.broker.handle_time(&member.client.attachment.slot, later);
    world.quiet().await;
    (at_least_once, disk.after_power_loss(), world.broker.store.has_failed())
}

/// Rule 16. When the session of a member expires, what it has not acknowledged of QoS 1 goes to the next member,
/// and QoS 2 that it began goes to nobody, wherever a crash comes in between [MQTT-4.8.2-5]. The group owns its
/// messages, so that none has to be given back (ADR 6).
#[tokio::test]
async fn shared_member_expires() {
    for n in 1.. {
        let (at_least_once, disk, has_failed) = a_member_that_expires(n).await;
        let world = World::on(&disk, LIMITS, &STORE);
        let next = world.attach("next").await;
        let group = world.broker.group("$share/g/a");
        assert_eq!(world.fetch(&group, &next), [at_least_once], "after a crash at sync {n}");
        // If the session was not over yet it is now.
        let later = world.broker.clock.now().plus(Duration::from_secs(601));
        world.broker.find("one").iter().for_each(|slot| world.broker.handle_time(slot, later));
        world.quiet().await;
        assert_eq!(world.fetch(&group, &next), [], "after a crash at sync {n}");
        assert_eq!(world.broker.store.messages().0, 1, "what has gone to nobody is gone");
        if !has_failed {
            return assert!(n > 1, "there was no crash");
        }
    }
}

/// Rule 18. A connection that was too slow to give its seat back has nothing to give any more: what the session has
/// in hand of a group is the next connection's.
#[tokio::test]
async fn what_the_next_connection_has_in_hand_goes_to_nobody_else() {
    let takeover_timeout = Duration::from_millis(10);
    let world = World::with(BrokerLimits { takeover_timeout, ..LIMITS });
    let (publisher, other) = (world.attach("p").await, world.attach("other").await);
    world.subscribe(&other, "$share/g/a");
    let slow = member(&world, "one").await;
    let mut next = member(&world, "one").await;
    assert!(slow.client.link.is_unseated() && !next.client.link.is_unseated());
    world.submit_at(Qos::ExactlyOnce, &publisher, b"x", false);
    world.quiet().await;
    assert_eq!(next.take(&world).await.len(), 1);
    slow.leave(&world);
    let group = world.broker.group("$share/g/a");
    assert_eq!(world.fetch(&group, &other), [], "it has begun [MQTT-4.8.2-5]");
    next.leave(&world);
    assert_eq!(world.fetch(&group, &other), [], "it stays with its session");
}

fn will(delay: u32) -> WillRecord {
    WillRecord { message: message(b"gone"), delay, message_expiry: None }
}

/// A client whose session has a will that is due in 100 seconds, and the client that is owed it.
async fn left_with_a_will(world: &World) -> (Client, Client) {
    let watcher = world.attach("watcher").await;
    world.subscribe(&watcher, "a");
    let client = world.attach_with(Connect::new(Version::V5, "c"), Some(will(100))).await;
    world.leave(&client, Departure::default());
    world.quiet().await;
    (client, watcher)
}

fn in_seconds(world: &World, seconds: u64) -> UnixMillis {
    world.broker.clock.now().plus(Duration::from_secs(seconds))
}

/// Rule 17. A will is published once, whoever comes to it: two looks of the timers and the end of the session at
/// the same moment, or a crash between its publication and anything else.
#[tokio::test]
async fn will_once() {
    for _ in 0..30 {
        let world = World::new();
        let (client, watcher) = left_with_a_will(&world).await;
        let (slot, due) = (&client.attachment.slot, in_seconds(&world, 200));
        std::thread::scope(|scope| {
            let at_once = slot.lock();
            for _ in 0..2 {
                scope.spawn(|| world.broker.handle_time(slot, due));
            }
            scope.spawn(|| world.broker.end_session(slot));
            drop(at_once);
        });
        world.quiet().await;
        assert_eq!(world.owed(&watcher).len(), 1);
    }
    for n in 1.. {
        let disk = Disk::default();
        let world = World::on(&disk, LIMITS, &ONE_BY_ONE);
        let (client, _) = left_with_a_will(&world).await;
        disk.crash_at_sync(n);
        world.broker.handle_time(&client.attachment.slot, in_seconds(&world, 200));
        world.quiet().await;
        let has_failed = world.broker.store.has_failed();
        drop(world);

        let world = World::on(&disk.after_power_loss(), LIMITS, &STORE);
        world.broker.handle_time(&world.broker.find("c").unwrap(), in_seconds(&world, 200));
        world.quiet().await;
        let watcher = world.attach("watcher").await;
        assert_eq!(world.owed(&watcher).len(), 1, "after a crash at sync {n}");
        if !has_failed {
            return assert!(n > 1, "there was no crash");
        }
    }
}

/// When the client "c" has left, when its will is due, and when its session ends.
fn dues(world: &World) -> (Option<UnixMillis>, Option<UnixMillis>, Option<UnixMillis>) {
    let slot = world.broker.find("c").unwrap();
    let inner = slot.lock();
    (inner.closed_at, inner.will.as_ref().and_then(|will| will.due), inner.expires_at())
}

/// Rule 17. A session that was online at a crash counts as disconnected at the restart: its will and its expiry
/// begin then, and the start after that does not let them begin anew.
#[tokio::test]
async fn a_crash_is_a_disconnect() {
    let disk = Disk::default();
    let world = World::on(&disk, LIMITS, &STORE);
    world.attach_with(Connect::new(Version::V5, "c"), Some(will(100))).await;
    let disk = disk.after_power_loss();
    drop(world);

    let world = World::on(&disk, LIMITS, &STORE);
    let (closed_at, due, expires_at) = dues(&world);
    let closed_at = closed_at.unwrap();
    assert!(closed_at <= world.broker.clock.now());
    let after = |seconds| Some(closed_at.plus(Duration::from_secs(seconds)));
    assert_eq!((due, expires_at), (after(100), after(600)));
    world.quiet().await;
    drop(world);
    assert_eq!(dues(&World::on(&disk, LIMITS, &STORE)), (Some(closed_at), due, expires_at));
}

/// Rule 22. Deadlines are stored as wall time: a restart moves none. That a wall clock which has jumped meanwhile
/// ends nothing is the clock's to show.
#[tokio::test]
async fn one_clock() {
    let disk = Disk::default();
    let world = World::on(&disk, LIMITS, &STORE);
    left_with_a_will(&world).await;
    let before = dues(&world);
    assert!(before.0.is_some_and(|closed_at| closed_at <= world.broker.clock.now()));
    let disk = disk.after_power_loss();
    drop(world);
    assert_eq!(dues(&World::on(&disk, LIMITS, &STORE)), before);
}
