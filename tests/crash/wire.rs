//! One connection as a client sees it: packets in order, in owned form, over a blocking socket.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use causeway::codec::{
    Connect, Decoder, Disconnect, MAX_PACKET_SIZE, Packet, PacketId, PublishFrame, PublishProperties, Qos,
    ReasonCode, Subscribe, SubscribeFilter, SubscribeOptions, Version, Will, encode,
};

use crate::gate::PATIENCE;

const VERSION: Version = Version::V5;

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Publish(Message),
    Puback(u16, ReasonCode),
    Pubrec(u16, ReasonCode),
    Pubrel(u16),
    Pubcomp(u16, ReasonCode),
    Suback(Vec<ReasonCode>),
    Disconnect(ReasonCode),
    Other,
}

/// A PUBLISH, either way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    /// 0 for QoS 0.
    pub packet_id: u16,
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Terms {
    pub client_id: String,
    pub clean_start: bool,
    /// Seconds.
    pub expiry: u32,
    pub receive_maximum: u16,
    /// Topic (its payload is "gone") and delay in seconds.
    pub will: Option<(String, u32)>,
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    out: Vec<u8>,
    pub session_present: bool,
}

impl Message {
    pub fn new(qos: Qos, topic: &str, payload: &str) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    pub fn repeated(self) -> Self {
        Self { dup: true, ..self }
    }

    pub fn id(self, packet_id: u16) -> Self {
        Self { packet_id, ..self }
    }
}

impl Terms {
    /// A session that outlives the test.
    pub fn durable(client_id: &str) -> Self {
        Self {
            client_id: client_id.into(),
            clean_start: false,
            expiry: 3600,
            receive_maximum: u16::MAX,
            will: None,
        }
    }

    /// A session that ends with its connection.
    pub fn passing(client_id: &str) -> Self {
        Self { clean_start: true, expiry: 0, ..Self::durable(client_id) }
    }
}

impl Wire {
    /// Connects, and waits for CONNACK. A refusal is an error.
    pub fn connect(address: SocketAddr, terms: &Terms) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let decoder = Decoder::client(VERSION, MAX_PACKET_SIZE);
        let mut wire = Self { stream, decoder, buffer: Vec::new(), out: Vec::new(), session_present: false };
        encode::connect(&connect(terms), &mut wire.out).unwrap();
        wire.flush()?;
        wire.connack()?;
        Ok(wire)
    }

    fn connack(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((Packet::Connack(connack), len)) = self.decoder.decode(&self.buffer).unwrap() {
                assert_eq!(connack.reason, ReasonCode::Success);
                self.session_present = connack.session_present;
                self.buffer.drain(..len);
                return Ok(());
            }
            assert!(self.buffer.is_empty() || Instant::now() < deadline, "no CONNACK");
            self.fill(deadline)?;
        }
    }

    /// The next thing the broker says; `None` when it says nothing within `wait`. An error is the end of the
    /// connection.
    pub fn next(&mut self, wait: Duration) -> io::Result<Option<Event>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(event) = self.buffered() {
                return Ok(Some(event));
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The next thing that has arrived already.
    pub fn buffered(&mut self) -> Option<Event> {
        let (packet, len) =
            self.decoder.decode(&self.buffer).expect("the broker sends no malformed packet")?;
        let event = event(packet);
        self.buffer.drain(..len);
        Some(event)
    }

    /// The next thing, in a test that knows that something comes.
    pub fn expect(&mut self) -> Event {
        self.next(PATIENCE).expect("the connection is open").expect("the broker says something")
    }

    /// As [`Wire::expect`], for a PUBLISH.
    pub fn expect_publish(&mut self) -> Message {
        match self.expect() {
            Event::Publish(message) => message,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    pub fn publish(&mut self, message: &Message) {
        let frame = PublishFrame {
            dup: message.dup,
            qos: message.qos,
            retain: message.retain,
            packet_id: PacketId::new(message.packet_id),
            topic: message.topic.as_bytes(),
            alias: None,
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload_len: 0,
        };
        let payload = message.payload.as_bytes();
        encode::publish(VERSION, &frame, payload, MAX_PACKET_SIZE, &mut self.out).unwrap();
    }

    pub fn puback(&mut self, id: u16) {
        let (id, size_max) = (PacketId::new(id).unwrap(), MAX_PACKET_SIZE);
        encode::puback(VERSION, id, ReasonCode::Success, None, size_max, &mut self.out).unwrap();
    }

    pub fn pubrec(&mut self, id: u16) {
        let (id, size_max) = (PacketId::new(id).unwrap(), MAX_PACKET_SIZE);
        encode::pubrec(VERSION, id, ReasonCode::Success, None, size_max, &mut self.out).unwrap();
    }

    pub fn pubrel(&mut self, id: u16) {
        let (id, size_max) = (PacketId::new(id).unwrap(), MAX_PACKET_SIZE);
        encode::pubrel(VERSION, id, ReasonCode::Success, None, size_max, &mut self.out).unwrap();
    }

    pub fn pubcomp(&mut self, id: u16) {
        let (id, size_max) = (PacketId::new(id).unwrap(), MAX_PACKET_SIZE);
        encode::pubcomp(VERSION, id, ReasonCode::Success, None, size_max, &mut self.out).unwrap();
    }

    pub fn subscribe(&mut self, filter: &str, qos: Qos) {
        let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
        let filters = vec![SubscribeFilter { filter: filter.into(), options }];
        let subscribe = Subscribe { packet_id: PacketId::new(1).unwrap(), subscription_id: None, filters };
        encode::subscribe(VERSION, &subscribe, &mut self.out).unwrap();
    }

    /// Says goodbye, and waits until the broker has let go.
    pub fn disconnect(mut self) {
        let normal = Disconnect::default();
        encode::disconnect(VERSION, &normal, MAX_PACKET_SIZE, &mut self.out).unwrap();
        if self.flush().is_ok() {
            while let Ok(Some(_)) = self.next(PATIENCE) {}
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Reads what there is; false when nothing came until `deadline`.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        let wait = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait))?;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn connect(terms: &Terms) -> Connect<'_> {
    let will = terms.will.as_ref().map(|(topic, delay)| Will {
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        payload: b"gone",
        delay: *delay,
        properties: PublishProperties::default(),
    });
    Connect {
        clean_start: terms.clean_start,
        will,
        session_expiry: Some(terms.expiry),
        receive_maximum: std::num::NonZeroU16::new(terms.receive_maximum),
        ..Connect::new(VERSION, &terms.client_id)
    }
}

fn event(packet: Packet<'_>) -> Event {
    match packet {
        Packet::Publish(publish) => Event::Publish(Message {
            topic: publish.topic.into(),
            payload: String::from_utf8(publish.payload.to_vec()).unwrap(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id.map_or(0, PacketId::get),
        }),
        Packet::Puback(ack) => Event::Puback(ack.packet_id.get(), ack.reason),
        Packet::Pubrec(ack) => Event::Pubrec(ack.packet_id.get(), ack.reason),
        Packet::Pubrel(ack) => Event::Pubrel(ack.packet_id.get()),
        Packet::Pubcomp(ack) => Event::Pubcomp(ack.packet_id.get(), ack.reason),
        Packet::Suback(suback) => Event::Suback(suback.reasons),
        Packet::Disconnect(disconnect) => Event::Disconnect(disconnect.reason),
        _ => Event::Other,
    }
}
