//! A client that sends what it is told, and takes whole packets.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Connect, Version, ack, recording::record};

/// How long a packet may take: long, because only a broken broker lets a test wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
}

/// A PUBLISH from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The flags of the fixed header.
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 with QoS 0.
    pub id: u16,
    /// As they came, without their length.
    pub properties: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Client {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version: Version::V5 }
    }

    /// Sends CONNECT, and checks that it was accepted.
    pub fn connect(&mut self, connect: &Connect, session_present: bool) -> Vec<u8> {
        self.version = connect.version;
        self.send(&connect.bytes());
        let connack = self.receive();
        assert_eq!(connack[0], 0x20, "no CONNACK: {connack:02x?}");
        assert_eq!(connack[3], 0, "refused: {connack:02x?}");
        assert_eq!(connack[2], u8::from(session_present), "Session Present: {connack:02x?}");
        connack
    }

    /// Sends bytes. That the broker has closed already is for the next read to find out.
    pub fn send(&mut self, bytes: &[u8]) {
        record(&self.stream, bytes);
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet.
    pub fn receive(&mut self) -> Vec<u8> {
        self.next().unwrap_or_else(|| panic!("the connection was closed"))
    }

    /// Checks the next packet, byte by byte.
    pub fn expect(&mut self, packet: &[u8]) {
        let received = self.receive();
        assert_eq!(received, packet, "{received:02x?} instead of {packet:02x?}");
    }

    /// Sends bytes and checks the answer.
    pub fn ask(&mut self, bytes: &[u8], answer: &[u8]) {
        self.send(bytes);
        self.expect(answer);
    }

    /// The next packet, which has to be a PUBLISH.
    pub fn message(&mut self) -> Received {
        let packet = self.receive();
        parse(&packet, self.version)
    }

    /// The next packet, which has to be a PUBLISH of QoS 1; acknowledged.
    pub fn take_qos_1(&mut self) -> Received {
        let message = self.message();
        assert_eq!(message.qos, 1, "{message:?}");
        self.send(&ack(0x40, message.id));
        message
    }

    /// Shows that nothing was on its way: the answer to a PINGREQ comes first.
    pub fn expect_nothing(&mut self) {
        self.ask(&[0xC0, 0], &[0xD0, 0]);
    }

    /// Whether something has arrived, without waiting for it.
    pub fn has_something(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let has = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        has
    }

    /// The broker closes without a word.
    pub fn expect_closed(&mut self) {
        let next = self.next();
        assert_eq!(next, None, "a packet instead of the end: {next:02x?}");
    }

    /// The broker says why by DISCONNECT, if the client knows that, and closes.
    pub fn expect_end(&mut self, reason: u8) {
        if self.version == Version::V5 {
            let packet = self.receive();
            assert!(packet[0] == 0xE0 && packet[2] == reason, "{packet:02x?} instead of 0x{reason:02x}");
        }
        self.expect_closed();
    }

    /// Reads until the end, or until a packet `is_it`.
    pub fn wait_for_end_or(&mut self, is_it: impl Fn(&[u8]) -> bool) {
        while self.next().is_some_and(|packet| !is_it(&packet)) {}
    }

    /// Cuts the connection without DISCONNECT, and waits until the broker has seen it.
    pub fn cut(self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.wait_for_end();
    }

    /// Says DISCONNECT, and waits until the broker has seen it.
    pub fn leave(mut self) {
        self.send(&[0xE0, 0]);
        self.wait_for_end();
    }

    /// Sends the last bytes, and waits until the broker has closed.
    pub fn leave_with(mut self, bytes: &[u8]) {
        self.send(bytes);
        self.wait_for_end();
    }

    fn wait_for_end(mut self) {
        while self.next().is_some() {}
    }

    /// The next packet; `None` at the end of the connection.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2];
        if !self.read(&mut packet) {
            return None;
        }
        let (mut length, mut shift) = (usize::from(packet[1] & 0x7F), 7);
        while packet[packet.len() - 1] & 0x80 != 0 {
            let mut byte = [0];
            assert!(self.read(&mut byte), "cut in the middle");
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            packet.push(byte[0]);
        }
        let head = packet.len();
        packet.resize(head + length, 0);
        assert!(self.read(&mut packet[head..]), "cut in the middle");
        Some(packet)
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                false
            }
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

fn parse(packet: &[u8], version: Version) -> Received {
    assert_eq!(packet[0] >> 4, 3, "no PUBLISH: {packet:02x?}");
    let mut at = 1 + packet[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let u16_at = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let end = at + 2 + usize::from(u16_at(at));
    let topic = String::from_utf8(packet[at + 2..end].to_vec()).unwrap();
    at = end;
    let qos = packet[0] >> 1 & 3;
    let mut id = 0;
    if qos > 0 {
        id = u16_at(at);
        at += 2;
    }
    let mut properties = Vec::new();
    if version == Version::V5 {
        let (mut length, mut shift) = (0, 0);
        loop {
            length |= usize::from(packet[at] & 0x7F) << shift;
            (at, shift) = (at + 1, shift + 7);
            if packet[at - 1] & 0x80 == 0 {
                break;
            }
        }
        properties = packet[at..at + length].to_vec();
        at += length;
    }
    let payload = packet[at..].to_vec();
    Received { dup: packet[0] & 8 != 0, qos, retain: packet[0] & 1 != 0, topic, id, properties, payload }
}
