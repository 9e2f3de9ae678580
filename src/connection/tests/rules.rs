//! The rules that keep the promise, as far as it takes clients to show them. Names are the design's.
//!
//! An interleaving is forced by a disk whose syncs do not return: what was submitted meanwhile is not committed.
//! A PINGRESP that comes first shows that nothing else has come. Clients speak 3.1.1.

use crate::store::tests::owed;
use crate::topic::TopicFilter;

use super::clients::*;
use super::*;

/// Rule 6. A QoS 2 message of a durable publisher goes to nobody before its commit, whatever their QoS, and to
/// everybody after it, though its publisher has gone. That the pending list has the number at submit is not so
/// any more: it has it at the commit (ADR 1).
#[tokio::test]
async fn qos2_publisher_gone_after_commit() {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let config = RouteConfig { queue: LIMITS.queue, ..RouteConfig::new("r", "t", "target") };
    let topics = vec![TopicFilter::parse("t", 9).unwrap()];
    let route = broker.add_route(&config, RouteFilters { topics, exclude: Vec::new() }).unwrap();
    let mut subscribers = [
        Client::clean(address, "a").await.subscribed("t", 0).await,
        Client::clean(address, "b").await.subscribed("t", 1).await,
        Client::durable(address, "c", false).await.subscribed("t", 2).await,
    ];
    let mut publisher = Client::durable(address, "p", false).await;
    quiet(&broker).await;

    disk.hold_syncs();
    publisher.send(&publish(QOS_2, "t", 7, b"x")).await;
    publisher.expect_nothing().await;
    held(&disk).await;
    for subscriber in &mut subscribers {
        subscriber.expect_nothing().await;
    }
    publisher.cut().await;
    for subscriber in &mut subscribers {
        subscriber.expect_nothing().await;
    }
    let owed_to_route = || owed(&broker.store, route.recipient).len();
    assert_eq!(owed_to_route(), 0);

    disk.release_syncs();
    for (subscriber, qos) in subscribers.iter_mut().zip([0, QOS_1, QOS_2]) {
        subscriber.expect(&publish(qos, "t", 1, b"x")).await;
    }
    assert_eq!(owed_to_route(), 1);
    // Its repeat is answered, and goes to nobody.
    let mut publisher = Client::durable(address, "p", true).await;
    publisher.ask(&publish(QOS_2 | DUP, "t", 7, b"x"), &ack(0x50, 7)).await;
    subscribers[0].expect_nothing().await;
    broker.store.close();
}

/// Rule 8. A QoS 2 identifier is known from submit on: a repeat before the commit is not routed again, neither
/// by the same connection nor by one that takes the session over. The session does not move with what is open,
/// as the rule has it: it is rebuilt from the store behind all that was submitted (ADR 2).
#[tokio::test]
async fn repeat_before_commit() {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let mut subscriber = Client::clean(address, "s").await.subscribed("t", 0).await;
    let mut first = Client::durable(address, "p", false).await;
    quiet(&broker).await;

    disk.hold_syncs();
    first.send(&publish(QOS_2, "t", 7, b"x")).await;
    held(&disk).await;
    first.send(&publish(QOS_2 | DUP, "t", 7, b"x")).await;
    first.expect_nothing().await;
    disk.release_syncs();
    first.expect(&[ack(0x50, 7), ack(0x50, 7)].concat()).await;
    subscriber.expect(&publish(0, "t", 0, b"x")).await;
    subscriber.expect_nothing().await;

    disk.hold_syncs();
    first.send(&publish(QOS_2, "t", 8, b"y")).await;
    first.expect_nothing().await;
    held(&disk).await;
    let mut second = Client::open(address).await;
    second.send(&[connect(0, "p"), publish(QOS_2 | DUP, "t", 8, b"y")].concat()).await;
    first.wait_for_end().await;
    disk.release_syncs();
    second.expect(&[b"\x20\x02\x01\0".as_slice(), &ack(0x50, 8)].concat()).await;
    subscriber.expect(&publish(0, "t", 0, b"y")).await;
    subscriber.expect_nothing().await;
    second.ask(&ack(0x62, 8), &ack(0x70, 8)).await;
    broker.store.close();
}

/// Rule 9. What a session holds back is submitted when it leaves: its next connection repeats nothing, and gives
/// the identifier out again.
#[tokio::test]
async fn what_is_held_back_is_told_at_the_disconnect() {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let mut subscriber = Client::durable(address, "s", false).await.subscribed("t", 2).await;
    let mut publisher = Client::clean(address, "p").await;
    publisher.ask(&publish(QOS_2, "t", 1, b"x"), &ack(0x50, 1)).await;
    subscriber.expect(&publish(QOS_2, "t", 1, b"x")).await;
    subscriber.ask(&ack(0x50, 1), &ack(0x62, 1)).await;
    subscriber.send(&ack(0x70, 1)).await;
    subscriber.disconnect().await;
    quiet(&broker).await;
    broker.store.close();

    let (broker, address) = broker_on(open_on(&disk.after_power_loss(), &STORE).unwrap()).await;
    Client::durable(address, "s", true).await.expect_nothing().await;
    broker.store.close();
}

/// A subscriber has a message whose identifier, 1, no disk knows, when the power goes. `None` when the report
/// that names it was quicker.
async fn delivered_without_a_trace() -> Option<Disk> {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let mut subscriber = Client::durable(address, "s", false).await.subscribed("t", 1).await;
    let mut publisher = Client::clean(address, "p").await;
    quiet(&broker).await;
    disk.hold_syncs();
    publisher.send(&publish(QOS_1, "t", 1, b"x")).await;
    subscriber.expect(&publish(QOS_1, "t", 1, b"x")).await;
    let message = broker.store.last_submitted();
    disk.release_syncs();
    publisher.expect(&ack(0x40, 1)).await;
    disk.hold_syncs();
    let lost = disk.after_power_loss();
    let is_told = broker.store.watermark() > message;
    disk.release_syncs();
    broker.store.close();
    (!is_told).then_some(lost)
}

/// Rule 10. After a crash a message whose identifier was lost comes with DUP under one of another block, and a
/// late PUBACK of the old one settles nothing.
#[tokio::test]
async fn stale_puback_after_crash() {
    let disk = loop {
        if let Some(disk) = delivered_without_a_trace().await {
            break disk;
        }
    };
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let repeat = |packet_id| publish(QOS_1 | DUP, "t", packet_id, b"x");
    let mut subscriber = Client::durable(address, "s", true).await;
    let again = subscriber.next().await.unwrap();
    let packet_id = u16::from_be_bytes([again[5], again[6]]);
    assert_eq!(again, repeat(packet_id));
    assert!(packet_id > 1 << 14, "{packet_id} may have been in use");
    subscriber.send(&ack(0x40, 1)).await;
    subscriber.expect_nothing().await;
    subscriber.cut().await;

    let mut subscriber = Client::durable(address, "s", true).await;
    subscriber.expect(&repeat(packet_id)).await;
    subscriber.send(&ack(0x40, packet_id)).await;
    subscriber.disconnect().await;
    Client::durable(address, "s", true).await.expect_nothing().await;
    broker.store.close();
}
