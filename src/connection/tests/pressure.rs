//! The rules that keep the promise, where somebody is slow, stuck, full or overtaken. Names are the design's.

use std::sync::mpsc;

use tokio::net::TcpSocket;

use super::clients::*;
use super::*;
use crate::broker::PublishContext;
use crate::codec::{Qos, SubscribeOptions};
use crate::session::{SessionLimits, SubscribeRequest};
use crate::store::SubmitError;
use crate::topic::{SubscriptionFilter, TopicName};

/// A client whose receive buffer is small, so that a broker that writes to it is soon stuck.
async fn narrow(address: SocketAddr, connect: &[u8]) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = Client(socket.connect(address).await.unwrap());
    client.ask(connect, b"\x20\x02\0\0").await;
    client
}

async fn broker_of(limits: BrokerLimits) -> (Arc<Broker>, SocketAddr, Disk) {
    let disk = Disk::default();
    let (broker, address) = broker_with(limits, open_on(&disk, &STORE).unwrap()).await;
    (broker, address, disk)
}

/// Where one client is served by a thread that may get stuck and hold up nobody else.
fn on_a_thread_of_its_own(broker: &Arc<Broker>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let context = context(broker, address);
    std::thread::spawn(move || {
        let (accepted, peer) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            serve(context, Stream::Tcp(TcpStream::from_std(accepted).unwrap()), peer).await;
        });
    });
    address
}

/// A payload of `len` bytes that begins with its number.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(len, 0);
    payload
}

/// The flags, packet identifier and number of a PUBLISH with QoS above 0.
fn number_of(packet: &[u8]) -> (u8, u16, u32) {
    let head = 1 + packet[1..].iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let body = &packet[head..];
    let number = body[5..9].try_into().unwrap();
    (packet[0] & 0xf, u16::from_be_bytes([body[3], body[4]]), u32::from_be_bytes(number))
}

/// Rule 11. However often the outbox overflows, the backlog is read and the session goes live, while commits
/// come or do not: a subscriber gets everything once and in order.
#[tokio::test]
async fn order_is_kept_over_every_switch() {
    let (broker, address, disk) = broker_of(BrokerLimits { outbox_bytes: 4096, ..LIMITS }).await;
    let mut subscriber = Client::durable(address, "s", false).await.subscribed("t", 1).await;
    let mut publisher = Client::clean(address, "p").await;
    let (mut sent, mut seen) = (0, 0);
    for round in 0..12_u32 {
        let takes_now = round % 3 * 20;
        if round % 4 == 1 {
            disk.hold_syncs();
        }
        for _ in 0..60 {
            // Small ones fit where the large one before did not.
            let len = if sent % 4 == 0 { 1500 } else { 4 };
            publisher.send(&publish(QOS_1, "t", 1 + sent as u16, &numbered(sent, len))).await;
            sent += 1;
        }
        disk.release_syncs();
        let until = if round % 5 == 4 { sent } else { sent.min(seen + takes_now) };
        while seen < until {
            let (flags, packet_id, number) = number_of(&subscriber.next().await.unwrap());
            assert_eq!((flags, number), (QOS_1, seen));
            subscriber.send(&ack(0x40, packet_id)).await;
            seen += 1;
        }
    }
    while seen < sent {
        let (_, packet_id, number) = number_of(&subscriber.next().await.unwrap());
        assert_eq!(number, seen);
        subscriber.send(&ack(0x40, packet_id)).await;
        seen += 1;
    }
    subscriber.expect_nothing().await;
    broker.store.close();
}

/// Rule 14. A session that ends with its connection is closed when its outbox is full: what it has got until
/// then is everything, in order, and nothing behind a gap.
#[tokio::test]
async fn slow_clean_session() {
    const LEN: usize = 8192;
    let session = SessionLimits { inflight: u16::MAX, ..LIMITS.session };
    let (broker, address, _) = broker_of(BrokerLimits { outbox_bytes: 8 * LEN, session, ..LIMITS }).await;
    let mut slow = narrow(address, &connect(2, "s")).await.subscribed("t", 1).await;
    let mut publisher = Client::clean(address, "p").await;
    let mut sent = 0;
    while broker.find("s").is_some() {
        publisher.ask(&publish(QOS_1, "t", 1, &numbered(sent, LEN)), &ack(0x40, 1)).await;
        sent += 1;
        assert!(sent < 20_000, "nobody closes it");
    }
    let mut seen = 0;
    while let Some(packet) = slow.next().await {
        assert_eq!(number_of(&packet).2, seen);
        seen += 1;
    }
    assert!(seen < sent, "what did not fit was not skipped");
    broker.store.close();
}

/// A connection that got stuck within a packet, and what it takes to let it go on.
struct Stuck {
    connection: Client,
    leaves: mpsc::Sender<()>,
    looker: std::thread::JoinHandle<()>,
}

impl Stuck {
    /// The client "p" sends all packets at once. The first is QoS 2; where a retained one follows the connection is
    /// stuck, because somebody looks at the retained messages.
    async fn within(broker: &Arc<Broker>, packets: &[u8]) -> Self {
        let slot = broker.find("w").unwrap();
        let request = SubscribeRequest {
            filter: SubscriptionFilter::parse("h", 9).unwrap(),
            options: SubscribeOptions { qos: Qos::AtMostOnce, ..SubscribeOptions::default() },
            id: None,
        };
        let identity = broker.auth.authenticate(([127, 0, 0, 1], 1).into(), None, None).unwrap();
        let rights = broker.auth.rights(&identity, "w").unwrap();
        let scan = broker.subscribe(&slot, vec![Ok(request)], &rights).unwrap().scans.pop().unwrap();
        let ((looks, looking), (leaves, leaving)) = (mpsc::channel(), mpsc::channel());
        let looker = Arc::clone(broker);
        let looker = std::thread::spawn(move || {
            let look = |_: &TopicName<'_>| {
                looks.send(()).unwrap();
                leaving.recv().is_err()
            };
            looker.send_retained(&slot, scan, UnixMillis(0), look, &mut PublishContext::default()).unwrap();
        });
        let mut connection = Client::durable(on_a_thread_of_its_own(broker), "p", false).await;
        quiet(broker).await;
        looking.recv().unwrap();
        let next = Lsn(broker.store.last_submitted().0 + 1);
        connection.send(packets).await;
        broker.store.durable(next).await.unwrap();
        Self { connection, leaves, looker }
    }

    /// Waits until it has ended, and what it has done until then is on disk.
    async fn go_on(self, broker: &Broker) {
        self.leaves.send(()).unwrap();
        self.looker.join().unwrap();
        self.connection.wait_for_end().await;
        quiet(broker).await;
    }
}

/// A broker that waits no longer than needed for a connection that is stuck, and who hears of "t" and "r".
async fn with_a_witness() -> (Arc<Broker>, SocketAddr, Client) {
    let takeover_timeout = Duration::from_millis(50);
    let (broker, address, _) = broker_of(BrokerLimits { takeover_timeout, ..LIMITS }).await;
    let mut witness = Client::clean(address, "w").await.subscribed("t", 0).await.subscribed("r", 0).await;
    witness.send(&publish(RETAIN, "h", 0, b"x")).await;
    witness.expect_nothing().await;
    (broker, address, witness)
}

/// Three messages have come to the witness, in whatever order, and no fourth.
async fn expect_three(witness: &mut Client, sent: [(&str, &[u8]); 3]) {
    let mut seen = Vec::new();
    for _ in &sent {
        seen.push(witness.next().await.unwrap());
    }
    seen.sort();
    assert_eq!(seen, sent.map(|(topic, payload)| publish(0, topic, 0, payload)));
    witness.expect_nothing().await;
}

/// Rule 18. A connection that is stuck in the midst of a fan-out when another one takes its session ends that
/// fan-out, which is never cut short, and begins nothing more of what it has read.
#[tokio::test]
async fn takeover_mid_fanout() {
    let (broker, address, mut witness) = with_a_witness().await;
    let stuck = publish(QOS_1 | RETAIN, "r", 2, b"2");
    let packets = [publish(QOS_2, "t", 1, b"1"), stuck, publish(QOS_1, "t", 3, b"never")].concat();
    let first = Stuck::within(&broker, &packets).await;
    let mut second = Client::durable(address, "p", true).await;
    second.ask(&publish(QOS_2 | DUP, "t", 1, b"1"), &ack(0x50, 1)).await;
    second.ask(&publish(QOS_2, "t", 3, b"3"), &ack(0x50, 3)).await;
    first.go_on(&broker).await;
    expect_three(&mut witness, [("r", b"2"), ("t", b"1"), ("t", b"3")]).await;
    broker.store.close();
}

/// Rules 3 and 18. It was stuck before the fan-out of a QoS 2 message, whose identifier its epoch would make void:
/// the message is for the next connection, where the client repeats it.
#[tokio::test]
async fn what_was_not_submitted_before_a_takeover_is_not_routed() {
    let (broker, address, mut witness) = with_a_witness().await;
    let stuck = |flags| publish(QOS_2 | RETAIN | flags, "r", 2, b"2");
    let first = Stuck::within(&broker, &[publish(QOS_2, "t", 1, b"1"), stuck(0)].concat()).await;
    let mut second = Client::durable(address, "p", true).await;
    first.go_on(&broker).await;
    second.ask(&stuck(DUP), &ack(0x50, 2)).await;
    second.ask(&publish(QOS_2, "t", 3, b"3"), &ack(0x50, 3)).await;
    expect_three(&mut witness, [("r", b"2"), ("t", b"1"), ("t", b"3")]).await;
    broker.store.close();
}

/// Rule 19. With a disk that is nearly full new publishes and new sessions are refused, while what is owed is
/// delivered and settled, exchanges end, and sessions go on; and it is over when there is room.
#[tokio::test]
async fn disk_full_recovers() {
    let (broker, address, _) = broker_of(LIMITS).await;
    let keeper = Client::durable(address, "k", false).await.subscribed("t", 1).await;
    keeper.disconnect().await;
    let mut publisher = Client::open(address).await;
    publisher.send(b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01p").await;
    assert_eq!(publisher.next().await.unwrap()[2..4], [0, 0]);
    let publish_v5 = |payload| [b"\x32\x07\0\x01t\0\x01\0", [payload].as_slice()].concat();
    publisher.ask(&publish_v5(b'1'), &ack(0x40, 1)).await;
    let mut owner = Client::durable(address, "o", false).await;
    owner.ask(&publish(QOS_2, "t", 9, b"2"), &ack(0x50, 9)).await;

    broker.store.set_disk_full(true);
    assert_eq!(broker.store.admits_publish(), Err(SubmitError::Full));
    publisher.ask(&publish_v5(b'3'), b"\x40\x03\0\x01\x97").await;
    let mut refused = Client::open(address).await;
    refused.ask(&connect(0, "n"), b"\x20\x02\0\x03").await;
    refused.wait_for_end().await;
    assert!(broker.find("n").is_none());
    owner.ask(&ack(0x62, 9), &ack(0x70, 9)).await;
    let mut passing = Client::clean(address, "c").await.subscribed("q", 0).await;
    passing.ask(&publish(0, "q", 0, b"x"), &publish(0, "q", 0, b"x")).await;
    let mut keeper = Client::durable(address, "k", true).await;
    keeper.expect(&[publish(QOS_1, "t", 1, b"1"), publish(QOS_1, "t", 2, b"2")].concat()).await;
    keeper.send(&[ack(0x40, 1), ack(0x40, 2)].concat()).await;
    keeper.disconnect().await;
    Client::durable(address, "k", true).await.expect_nothing().await;

    broker.store.set_disk_full(false);
    publisher.ask(&publish_v5(b'4'), &ack(0x40, 1)).await;
    Client::durable(address, "n", false).await.disconnect().await;
    let mut keeper = Client::durable(address, "k", true).await;
    keeper.expect(&publish(QOS_1, "t", 3, b"4")).await;
    broker.store.close();
}

/// Rule 21. A connection that cannot write goes on reading, until its unsent replies reach 64 KiB; then it waits,
/// and keep-alive does not count against who is not read from. When the client reads again, all goes on.
#[tokio::test]
async fn write_blocked_both_sides() {
    const PINGS: usize = 100_000;
    let (broker, address, _) = broker_of(BrokerLimits { outbox_bytes: 1 << 23, ..LIMITS }).await;
    let mut witness = Client::clean(address, "w").await.subscribed("w", 0).await;
    // With a keep-alive of two seconds.
    let mut blocked = narrow(address, b"\x10\x0d\0\x04MQTT\x04\x02\0\x02\0\x01b").await;
    blocked = blocked.subscribed("t", 0).await;
    let mut publisher = Client::clean(address, "p").await;
    // More of each than replies may be: what is unsent is not what is counted.
    for number in 0..12 {
        publisher.send(&publish(0, "t", 0, &numbered(number, 1_000_000))).await;
    }
    publisher.expect_nothing().await;
    blocked.send(&publish(0, "w", 0, b"blocked")).await;
    witness.expect(&publish(0, "w", 0, b"blocked")).await;

    let (mut reader, mut writer) = blocked.0.into_split();
    let writing = tokio::spawn(async move {
        let pings = [0xc0, 0].repeat(PINGS);
        writer.write_all(&[pings, publish(0, "w", 0, b"paused")].concat()).await.unwrap();
        writer
    });
    // Longer than it may be silent, and then some rounds in which it would have been read.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    for _ in 0..20 {
        witness.expect_nothing().await;
    }
    let mut pings = 0;
    while pings < PINGS {
        let packet = next_packet(&mut reader).await.expect("it was closed");
        pings += usize::from(packet == [0xd0, 0]);
    }
    writing.await.unwrap();
    witness.expect(&publish(0, "w", 0, b"paused")).await;
    broker.store.close();
}
