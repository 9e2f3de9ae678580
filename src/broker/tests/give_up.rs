//! What leaves a queue other than by delivery, while somebody takes from it.

use super::*;
use crate::broker::give_up::Queue;
use crate::codec::PacketId as Id;
use crate::record::{Exchange, ExchangeState, Record, SessionDelta};
use crate::session::Durable;
use crate::store::{Page, SubmitError};

/// The oldest go when there are more than two.
fn drops_oldest() -> World {
    let queue = QueueConfig { messages: 2, overflow: Overflow::DropOldest, ..QUEUE };
    World::with(BrokerLimits { queue, ..LIMITS })
}

impl World {
    async fn publish_all<const N: usize>(&self, client: &Client) -> [Lsn; N] {
        let mut numbers = [Lsn::ZERO; N];
        for number in &mut numbers {
            *number = self.publish(client, b"x").await;
        }
        numbers
    }

    /// Everything that was submitted is durable.
    async fn settle(&self) {
        self.broker.store.durable(self.broker.store.last_submitted()).await.unwrap();
    }

    /// Has the queue cut to its limit.
    async fn look_at(&self, queue: &DurableSlot) {
        self.settle().await;
        self.broker.look_at(queue.recipient);
        self.settle().await;
    }

    fn in_queue(&self, queue: &DurableSlot) -> Vec<Lsn> {
        let durable = self.broker.store.watermark();
        numbers(&self.broker.store.read_after(queue.recipient, (Lsn::ZERO, durable), 100, |_| false).unwrap())
    }

    fn letters(&self) -> Vec<Lsn> {
        let letters = self.broker.store.read_dead_letters(Lsn::ZERO, 100).unwrap();
        letters.iter().map(|stored| DeadLetter::decode(&stored.bytes).unwrap().message_no).collect()
    }
}

impl Client {
    fn queue(&self) -> &DurableSlot {
        self.attachment.slot.durable().unwrap()
    }

    /// What it has in its outbox, taken.
    fn take(&self) -> Vec<Lsn> {
        let mut frames = Default::default();
        self.attachment.slot.take_frames(&mut frames, 0);
        frames.iter().map(|frame| frame.claim.as_ref().unwrap().lsn).collect()
    }
}

/// Stands in for records.
fn submitted(above: Lsn) -> Result<Lsn, SubmitError> {
    Ok(above)
}

fn numbers(page: &Page) -> Vec<Lsn> {
    page.messages.iter().map(|stored| stored.lsn).collect()
}

#[tokio::test]
async fn what_nobody_has_in_hand_goes_and_the_newest_stay() {
    let world = drops_oldest();
    let (away, publisher) = (world.attach("away").await, world.attach("publisher").await);
    world.subscribe(&away, "a");
    world.leave(&away, Departure::default());
    let [one, two, three, four] = world.publish_all(&publisher).await;
    world.look_at(away.queue()).await;
    assert_eq!((world.in_queue(away.queue()), world.letters()), (vec![three, four], vec![one, two]));
}

/// What is in its outbox comes from its backlog instead, without what was given up.
#[tokio::test]
async fn a_live_session_goes_back_to_its_backlog() {
    let world = drops_oldest();
    let (here, publisher) = (world.live("here").await, world.attach("publisher").await);
    world.subscribe(&here, "a");
    let [in_hand] = world.publish_all(&publisher).await;
    assert_eq!(here.take(), [in_hand]);
    let [two, three, four] = world.publish_all(&publisher).await;
    world.look_at(here.queue()).await;
    let slot = &here.attachment.slot;
    let mode = slot.lock().mode;
    assert_eq!((mode, here.take()), (Mode::Backlog, vec![]));
    assert_eq!((world.in_queue(here.queue()), world.letters()), (vec![in_hand, four], vec![two, three]));
    slot.go_live(world.broker.store.watermark()).unwrap();
    let [five] = world.publish_all(&publisher).await;
    assert_eq!(here.take(), [five]);
}

#[tokio::test]
async fn what_a_connection_takes_meanwhile_is_its_own_and_the_rest_is_not() {
    let world = drops_oldest();
    let (here, publisher) = (world.attach("here").await, world.attach("publisher").await);
    world.subscribe(&here, "a");
    let [one, two, three, four] = world.publish_all(&publisher).await;
    let slot = &here.attachment.slot;
    let (seen, page) = Queue::untouched(&**slot, &world.broker, Lsn::ZERO).unwrap().unwrap();
    assert_eq!(numbers(&page), [one, two, three, four]);
    // It has read all of them, in two pages, and takes one before, the other after they were given up.
    let mut second = Page { messages: page.messages.clone().split_off(2), ..page.clone() };
    let mut first = Page { cursor: two, ..page };
    first.messages.truncate(2);
    slot.take_in_hand(&mut first);
    let mut above_what = Lsn::ZERO;
    let given_up = slot.let_go_above(&seen, three, |above| {
        above_what = above;
        submitted(above)
    });
    slot.take_in_hand(&mut second);
    let taken = (numbers(&first), numbers(&second));
    assert_eq!((taken, given_up, above_what), ((vec![one, two], vec![four]), Some(Ok(())), two));
    assert_eq!(slot.let_go_above(&seen, four, submitted), None, "it has taken everything");
}

#[tokio::test]
async fn what_was_seen_before_another_connection_came_is_looked_at_again() {
    let world = drops_oldest();
    let (here, publisher) = (world.attach("here").await, world.attach("publisher").await);
    world.subscribe(&here, "a");
    let [one, ..] = world.publish_all::<4>(&publisher).await;
    let slot = &here.attachment.slot;
    let durable = world.broker.store.watermark();
    let seen = slot.untouched(durable).unwrap();
    world.leave(&here, Departure::default());
    assert!(slot.untouched(durable).is_none(), "what it had to say last is not durable");
    assert_eq!(slot.let_go_above(&seen, one, submitted), None);
    world.settle().await;
    let seen = slot.untouched(world.broker.store.watermark()).unwrap();
    let back = world.attach("here").await;
    assert_eq!(back.attachment.slot.let_go_above(&seen, one, submitted), None);
}

#[tokio::test]
async fn an_exchange_that_has_begun_goes_on() {
    let world = drops_oldest();
    let (away, publisher) = (world.attach("away").await, world.attach("publisher").await);
    world.subscribe(&away, "a");
    let [one, two, three, four] = world.publish_all(&publisher).await;
    let Durable { recipient, epoch } = away.attachment.durable.unwrap();
    let (packet_id, state) = (Id::new(1).unwrap(), ExchangeState::AwaitingPuback);
    let exchanges = vec![Exchange { packet_id, lsn: one, owner: recipient, state }];
    let delta = SessionDelta { recipient, epoch, exchanges, ..SessionDelta::default() };
    world.broker.store.submit(Record::of([Change::Progress(Box::new(delta))])).unwrap();
    world.leave(&away, Departure::default());
    world.look_at(away.queue()).await;
    assert_eq!((world.in_queue(away.queue()), world.letters()), (vec![one, four], vec![two, three]));
}

#[tokio::test]
async fn what_a_member_has_in_hand_stays_and_nobody_fetches_what_was_given_up() {
    let world = drops_oldest();
    let (one, other) = (world.attach("one").await, world.attach("other").await);
    world.subscribe(&one, "$share/g/a");
    let [first] = world.publish_all(&one).await;
    let group = world.broker.group("$share/g/a");
    assert_eq!(world.fetch(&group, &one), [first]);
    let [second, third, fourth] = world.publish_all(&one).await;
    world.look_at(group.durable().unwrap()).await;
    assert_eq!(world.letters(), [second, third]);
    world.subscribe(&other, "$share/g/a");
    assert_eq!(world.fetch(&group, &other), [fourth]);
    group.let_go(&one.attachment.slot, &[], &mut Touched::default());
    assert_eq!(world.fetch(&group, &other), [first]);
}

#[tokio::test]
async fn without_room_for_dead_letters_everything_stays() {
    let queue = QueueConfig { messages: 2, overflow: Overflow::DropOldest, ..QUEUE };
    let world = World::with(BrokerLimits { queue, dead_letters: 0, ..LIMITS });
    let (away, publisher) = (world.attach("away").await, world.attach("publisher").await);
    world.subscribe(&away, "a");
    world.leave(&away, Departure::default());
    let [one, two] = world.publish_all(&publisher).await;
    let receipt = world.submit(&publisher, b"x", false);
    assert!(matches!(receipt, Receipt::Refused(ReasonCode::QuotaExceeded)));
    // A will is refused to nobody.
    let mut touched = Touched::default();
    assert!(world.broker.route_will(retained_message(UnixMillis::NEVER), None, Vec::new(), &mut touched));
    world.look_at(away.queue()).await;
    let owed = world.in_queue(away.queue());
    assert_eq!((owed.len(), &owed[..2]), (3, &[one, two][..]));
}

/// It is above its limit for a moment, and by a bounded amount: what is beyond that is a dead letter at once.
#[tokio::test]
async fn a_queue_that_cannot_give_up_fast_enough_drops_the_newest() {
    let queue = QueueConfig { messages: 2, overflow: Overflow::DropOldest, ..QUEUE };
    let world = World::with(BrokerLimits { queue, dead_letters: 10_000, ..LIMITS });
    let (away, publisher) = (world.attach("away").await, world.attach("publisher").await);
    world.subscribe(&away, "a");
    world.leave(&away, Departure::default());
    for _ in 0..42 {
        for _ in 0..100 {
            world.submit(&publisher, b"", false);
        }
        world.settle().await;
    }
    let owed = away.queue().backlog.count();
    assert!((4098..4198).contains(&owed), "{owed}");
    assert_eq!(world.broker.store.dead_letters().0, 4200 - owed);
    // As the task does: a look ends where what it reads is not on disk yet.
    while world.broker.look_at(away.queue().recipient).is_some() {
        world.settle().await;
    }
    assert_eq!((away.queue().backlog.count(), world.broker.store.dead_letters().0), (2, 4198));
}

#[tokio::test]
async fn what_a_member_takes_or_settles_during_a_look_is_not_given_up() {
    let world = drops_oldest();
    let one = world.attach("one").await;
    world.subscribe(&one, "$share/g/a");
    let [first, second] = world.publish_all(&one).await;
    let group = world.broker.group("$share/g/a");
    assert!(group.begin_look(world.broker.store.watermark()).is_empty());
    assert_eq!(world.fetch(&group, &one), [first, second]);
    let settled = Change::Settled(group.durable().unwrap().recipient, vec![first]);
    group.settling(first);
    let report = world.broker.store.submit(Record::of([settled])).unwrap().lsn;
    world.settle().await;
    group.settled_by(report, first, world.broker.store.watermark());
    let mut given_up = Vec::new();
    let submit = |lsn| {
        given_up.push(lsn);
        Ok(lsn)
    };
    group.let_go_of(vec![first, second], |lsn| *lsn, submit).unwrap();
    group.end_look();
    assert_eq!(given_up, []);
}
