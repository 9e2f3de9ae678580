//! Clients of 3.1.1 that send bytes and take whole packets.

use tokio::io::AsyncRead;

use super::*;

/// A client that is connected.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// With a session that ends with its connection.
    pub(super) async fn clean(address: SocketAddr, client_id: &str) -> Self {
        let mut client = Self::open(address).await;
        client.ask(&connect(2, client_id), b"\x20\x02\0\0").await;
        client
    }

    /// With a session that outlives its connection and was there before, or not.
    pub(super) async fn durable(address: SocketAddr, client_id: &str, session_present: bool) -> Self {
        let mut client = Self::open(address).await;
        client.ask(&connect(0, client_id), &[0x20, 2, session_present.into(), 0]).await;
        client
    }

    /// Subscribed to a topic whose name has one letter.
    pub(super) async fn subscribed(mut self, topic: &str, qos: u8) -> Self {
        let subscribe = [b"\x82\x06\0\x01\0\x01", topic.as_bytes(), &[qos]].concat();
        self.ask(&subscribe, &[0x90, 3, 0, 1, qos]).await;
        self
    }

    pub(super) async fn ask(&mut self, bytes: &[u8], answer: &[u8]) {
        ask(&mut self.0, bytes, answer).await;
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(super) async fn expect(&mut self, answer: &[u8]) {
        self.ask(b"", answer).await;
    }

    /// Nothing has come, and nothing was on its way: what was there at the first PINGREQ comes before the
    /// answer to the second.
    pub(super) async fn expect_nothing(&mut self) {
        self.ask(b"\xc0\0", b"\xd0\0").await;
        self.ask(b"\xc0\0", b"\xd0\0").await;
    }

    /// The next packet, or `None` at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, next_packet(&mut self.0)).await.expect("a packet in time")
    }

    /// Waits until the broker has closed, and with that given the session back.
    pub(super) async fn wait_for_end(mut self) {
        while self.next().await.is_some() {}
    }

    /// Ends the connection without DISCONNECT.
    pub(super) async fn cut(mut self) {
        self.0.shutdown().await.unwrap();
        self.wait_for_end().await;
    }

    pub(super) async fn disconnect(mut self) {
        self.send(b"\xe0\0").await;
        self.wait_for_end().await;
    }
}

pub(super) async fn next_packet(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut packet = vec![stream.read_u8().await.ok()?];
    let (mut len, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        packet.push(byte);
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + len, 0);
    stream.read_exact(&mut packet[head..]).await.ok()?;
    Some(packet)
}

pub(super) fn connect(flags: u8, client_id: &str) -> Vec<u8> {
    let len = 12 + client_id.len() as u8;
    [b"\x10".as_slice(), &[len], b"\0\x04MQTT\x04", &[flags], b"\0\0\0", &[len - 12], client_id.as_bytes()]
        .concat()
}

/// A PUBLISH to a topic whose name has one letter; `flags` are those of the fixed header.
pub(super) fn publish(flags: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let packet_id = packet_id.to_be_bytes();
    let packet_id = if flags & 6 == 0 { &[] } else { packet_id.as_slice() };
    let mut len = 3 + packet_id.len() + payload.len();
    let mut packet = vec![0x30 | flags];
    while len >= 0x80 {
        packet.push(len as u8 | 0x80);
        len >>= 7;
    }
    packet.push(len as u8);
    [&packet, b"\0\x01".as_slice(), topic.as_bytes(), packet_id, payload].concat()
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) fn ack(first: u8, packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [first, 2, high, low]
}

/// What was submitted until now is on disk: the next record is taken as soon as it comes.
pub(super) async fn quiet(broker: &Broker) {
    broker.store.durable(broker.store.last_submitted()).await.unwrap();
}

/// Waits for the writer to come to a sync that does not return.
pub(super) async fn held(disk: &Disk) {
    let disk = disk.clone();
    tokio::task::spawn_blocking(move || disk.wait_until_held()).await.unwrap();
}

pub(super) const RETAIN: u8 = 1;
pub(super) const QOS_1: u8 = 2;
pub(super) const QOS_2: u8 = 4;
pub(super) const DUP: u8 = 8;
