//! One member of a group reads its queue, while things come back to it and others want to read, too.

use super::*;
use crate::broker::fan_out::leg;
use crate::broker::groups::SharedDelivery;
use crate::broker::publish::Routed;
use crate::session::Claim;
use crate::store::Page;

impl World {
    fn begin(&self, group: &Group, client: &Client) -> Option<Page> {
        let durable = self.broker.store.watermark();
        let Fetch::Read { recipient, after, in_hand } = group.begin_fetch(&client.attachment.slot, durable)
        else {
            return None;
        };
        let skip = |lsn: Lsn| in_hand.contains(&lsn);
        Some(self.broker.store.read_after(recipient, (after, durable), 10, skip).unwrap())
    }
}

fn end(group: &Group, client: &Client, page: Page) -> Option<Vec<Lsn>> {
    let (_, taken) = group.end_fetch(&client.attachment.slot, page)?;
    Some(taken.iter().map(|stored| stored.lsn).collect())
}

/// Members of one group, none of which is live, so that everything waits in its queue.
async fn members<const N: usize>(world: &World, names: [&str; N]) -> ([Client; N], Arc<Group>) {
    let mut clients = Vec::new();
    for name in names {
        let client = world.attach(name).await;
        world.subscribe(&client, "$share/g/a");
        clients.push(client);
    }
    let Ok(clients) = clients.try_into() else { unreachable!() };
    (clients, world.broker.group("$share/g/a"))
}

async fn is_rung(client: &Client) -> bool {
    tokio::time::timeout(Duration::from_millis(1), client.link.bell.heard()).await.is_ok()
}

#[tokio::test]
async fn what_comes_back_during_a_read_is_read_again() {
    let world = World::new();
    let ([one, other], group) = members(&world, ["one", "other"]).await;
    let (first, second) = (world.publish(&one, b"1").await, world.publish(&one, b"2").await);
    assert_eq!(world.fetch(&group, &other), [first, second]);
    let third = world.publish(&one, b"3").await;
    group.let_go(&other.attachment.slot, &[second], &mut Touched::default());
    let read = world.begin(&group, &one).unwrap();
    group.let_go(&other.attachment.slot, &[], &mut Touched::default());
    assert_eq!(end(&group, &one, read).unwrap(), [first, third], "second was not to be had");
    assert_eq!(world.fetch(&group, &one), [second]);
}

#[tokio::test]
async fn what_was_read_with_a_later_watermark_is_not_given_out_again() {
    let world = World::new();
    let ([one, other], group) = members(&world, ["one", "other"]).await;
    let first = world.publish(&one, b"1").await;
    let before = world.broker.store.watermark();
    // Whoever publishes this comes to the group only when it is on disk and was read.
    let (owner, message) = (group.durable().unwrap().recipient, retained_message(UnixMillis::NEVER));
    let legs = [leg(owner, Qos::AtLeastOnce, false, Default::default())].into();
    let entry = world.broker.submit(Routed::of(message.clone()), legs).unwrap();
    let lsn = entry.lsn;
    world.broker.store.durable(lsn).await.unwrap();
    assert_eq!(world.fetch(&group, &one), [first, lsn]);
    assert!(matches!(group.begin_fetch(&other.attachment.slot, before), Fetch::Nothing));
    other.attachment.slot.go_live(world.broker.store.watermark()).unwrap();
    let claim = Some(Claim { lsn, owner, entry: Some(entry) });
    let shared = SharedDelivery { message: &message, not_before: Lsn::ZERO, claim };
    group.push(shared, 4096, &mut Touched::default());
    let mut frames = Default::default();
    other.attachment.slot.take_frames(&mut frames, 0);
    assert!(frames.is_empty(), "it is in the hand of the first");
}

#[tokio::test]
async fn whoever_came_during_a_read_is_told_when_it_ends() {
    let world = World::new();
    let ([one, idle, other], group) = members(&world, ["one", "idle", "other"]).await;
    world.publish(&one, b"x").await;
    let read = world.begin(&group, &one).unwrap();
    assert!(world.begin(&group, &other).is_none());
    for client in [&one, &idle, &other] {
        is_rung(client).await;
    }
    end(&group, &one, read).unwrap();
    assert_eq!((is_rung(&idle).await, is_rung(&other).await), (false, true));
}

#[tokio::test]
async fn a_member_that_cannot_take_what_it_reads_keeps_nobody_from_reading() {
    let world = World::new();
    let ([one, other], group) = members(&world, ["one", "other"]).await;
    let lsn = world.publish(&one, b"x").await;
    let read = world.begin(&group, &one).unwrap();
    assert!(world.begin(&group, &other).is_none());
    is_rung(&other).await;
    group.yield_fetch(&one.attachment.slot);
    assert!(is_rung(&other).await);
    assert_eq!(world.fetch(&group, &other), [lsn]);
    assert_eq!(end(&group, &one, read), None);
    // With nobody else to read it takes it after all.
    let lsn = world.publish(&one, b"y").await;
    let read = world.begin(&group, &one).unwrap();
    group.yield_fetch(&one.attachment.slot);
    assert_eq!(end(&group, &one, read), Some(vec![lsn]));
}

/// It is not told of by anybody: the connection that had it gives back nothing when another has its seat.
#[tokio::test]
async fn what_a_connection_had_that_did_not_leave_in_time_goes_to_others() {
    let world = World::with(BrokerLimits { takeover_timeout: Duration::from_millis(10), ..LIMITS });
    let ([one, other], group) = members(&world, ["one", "other"]).await;
    let first = world.publish(&one, b"1").await;
    assert_eq!(world.fetch(&group, &one), [first]);
    let second = world.publish(&one, b"2").await;
    assert!(world.begin(&group, &one).is_some());
    let _next = world.attach("one").await;
    assert_eq!(world.fetch(&group, &other), [first, second]);
}

/// A connection that has lost its session reports what its client had acknowledged, and nobody hears it.
#[tokio::test]
async fn what_a_void_report_has_settled_is_given_to_somebody() {
    let world = World::new();
    let ([one, other], group) = members(&world, ["one", "other"]).await;
    let lsn = world.publish(&one, b"1").await;
    assert_eq!(world.fetch(&group, &one), [lsn]);
    assert_eq!(world.fetch(&group, &other), [], "the group has caught up");
    group.settling(lsn);
    let void = world.broker.store.submit(Record::of([])).unwrap().lsn;
    world.broker.store.durable(void).await.unwrap();
    group.settled_by(void, lsn, world.broker.store.watermark());
    assert_eq!(world.fetch(&group, &other), [lsn]);
}
