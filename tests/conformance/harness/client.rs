//! A client that sends what it is told, and takes whole packets.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    Connect, Publish, Version, ack, judge::judge, recording::record, suback, suback_v311, subscribe,
    subscribe_v311,
};

/// How long a packet may take: long, because only a broken broker lets a test wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
    /// Packets that came before one that was waited for.
    deferred: VecDeque<Vec<u8>>,
    /// Bytes that are read before the connection counts as cut.
    budget: usize,
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

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Alive,
    /// It ends with this reason.
    Told(u8),
    /// It ends without a word.
    Closed,
}

impl Client {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version: Version::V5, deferred: VecDeque::new(), budget: usize::MAX }
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

    /// Sends CONNECT; the CONNACK when it was accepted.
    pub fn offer(&mut self, connect: &Connect) -> Option<Vec<u8>> {
        self.version = connect.version;
        self.send(&connect.bytes());
        self.next().filter(|connack| connack[0] == 0x20 && connack[3] == 0)
    }

    /// Reads so many bytes more, and no more than that: then there is no next packet.
    pub fn read_at_most(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Ends the direction to the broker.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
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

    /// Whether what was sent is taken: the DISCONNECT that it was answered by, the end without one, or the
    /// answer to the PINGREQ after it.
    pub fn verdict(mut self, bytes: &[u8]) -> Verdict {
        self.send(&[bytes, &[0xC0, 0]].concat());
        loop {
            match self.next().as_deref() {
                None => return Verdict::Closed,
                Some([0xE0, _, reason, ..]) => return Verdict::Told(*reason),
                Some([0xD0, ..]) => return Verdict::Alive,
                Some(_) => {}
            }
        }
    }

    /// Reads to the end; the reason of the DISCONNECT before it, if there is one.
    pub fn last_words(mut self) -> Option<u8> {
        let mut reason = None;
        while let Some(packet) = self.next() {
            reason = (packet[0] == 0xE0).then(|| packet[2]);
        }
        reason
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

    /// Sends SUBSCRIBE in the client's version, and checks that it is granted as asked.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        let (filters, granted) = ([(filter, options)], [options & 3]);
        if self.version == Version::V5 {
            self.ask(&subscribe(1, &filters), &suback(0x90, 1, &granted));
        } else {
            self.ask(&subscribe_v311(1, &filters), &suback_v311(1, &granted));
        }
    }

    /// Sends a PUBLISH in the client's version.
    pub fn publish(&mut self, publish: &Publish) {
        self.send(&publish.bytes(self.version));
    }

    /// Checks that the next packet is this PUBLISH, in the client's version.
    pub fn expect_publish(&mut self, publish: &Publish) {
        self.expect(&publish.bytes(self.version));
    }

    /// Waits for this packet; what comes before it is for later.
    pub fn defer_until(&mut self, packet: &[u8]) {
        let mut earlier = std::mem::take(&mut self.deferred);
        if let Some(at) = earlier.iter().position(|known| known == packet) {
            earlier.remove(at);
            self.deferred = earlier;
            return;
        }
        loop {
            let received = self.receive();
            if received == packet {
                break;
            }
            earlier.push_back(received);
        }
        self.deferred = earlier;
    }

    /// The next packet, which has to be a PUBLISH.
    pub fn message(&mut self) -> Received {
        let packet = self.receive();
        self.parse(&packet)
    }

    /// What is in a PUBLISH.
    pub fn parse(&self, packet: &[u8]) -> Received {
        parse(packet, self.version)
    }

    /// The next packet, which has to be a PUBLISH of QoS 1; acknowledged.
    pub fn take_qos_1(&mut self) -> Received {
        let message = self.message();
        assert_eq!(message.qos, 1, "{message:?}");
        self.send(&ack(0x40, message.id));
        message
    }

    /// Shows that nothing was on its way: the answers to two PINGREQs come first, and what was there at the
    /// first would have come before the second.
    pub fn expect_nothing(&mut self) {
        self.ask(&[0xC0, 0], &[0xD0, 0]);
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

    /// Cuts the connection without DISCONNECT, and waits until the broker has seen it.
    pub fn cut(self) {
        self.half_close();
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
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        assert!(!end.is_err_and(|error| is_timeout(&error)), "the broker does not close");
    }

    /// The next packet; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(packet) = self.deferred.pop_front() {
            return Some(packet);
        }
        let mut packet = vec![0; 2];
        if !self.read(&mut packet) {
            return None;
        }
        let (mut length, mut shift) = (usize::from(packet[1] & 0x7F), 7);
        while packet[packet.len() - 1] & 0x80 != 0 {
            let mut byte = [0];
            if !self.read(&mut byte) {
                return self.cut_short();
            }
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            packet.push(byte[0]);
        }
        let head = packet.len();
        packet.resize(head + length, 0);
        if !self.read(&mut packet[head..]) {
            return self.cut_short();
        }
        if packet[0] == 0x20 && length == 2 && self.version == Version::V5 {
            // The test wrote a CONNECT of its own.
            self.version = Version::V311;
        }
        judge(&packet, self.version);
        Some(packet)
    }

    /// The broker sends whole packets, unless the test wants no more.
    fn cut_short(&self) -> Option<Vec<u8>> {
        assert!(self.budget < usize::MAX / 2, "cut in the middle");
        None
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let readable = buffer.len().min(self.budget);
        self.budget -= readable;
        match self.stream.read_exact(&mut buffer[..readable]) {
            Ok(()) => readable == buffer.len(),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                false
            }
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What is in a PUBLISH.
pub fn parse(packet: &[u8], version: Version) -> Received {
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
