//! A WebSocket client that sends the frames it is told, right or wrong, and takes what comes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long an answer may take: long, because only a broken broker lets a test wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection; over TCP unless said otherwise.
pub struct WebSocket<S = TcpStream> {
    stream: S,
    /// MQTT bytes that came in frames and were not asked for yet.
    payload: Vec<u8>,
}

impl WebSocket {
    /// The first frame of a message that ends with it, or does not; what continues it; the control frames.
    pub const TEXT: u8 = 0x81;
    pub const BINARY: u8 = 0x82;
    pub const FIRST: u8 = 0x02;
    pub const NEXT: u8 = 0x00;
    pub const LAST: u8 = 0x80;
    pub const CLOSE: u8 = 0x88;
    pub const PING: u8 = 0x89;
    pub const PONG: u8 = 0x8A;

    /// A connection that has sent nothing yet.
    pub fn dial(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A connection after the handshake.
    pub fn open(address: SocketAddr) -> Self {
        Self::over(Self::dial(address))
    }

    /// Sends a request with these lines of header. Gives the answer: the head, and the text if it was refused.
    pub fn ask(address: SocketAddr, first_line: &str, header: &str) -> String {
        let mut socket = Self { stream: Self::dial(address), payload: Vec::new() };
        socket.request(first_line, header)
    }

    /// The header of a request that is accepted, with this line added.
    pub fn header(more: &str) -> String {
        format!(
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    }

    /// A frame as a client sends it.
    pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x5A, 0x00, 0xFF, 0x13];
        let mut bytes = match payload.len() {
            len @ ..126 => vec![first, 0x80 | len as u8],
            len @ ..0x1_0000 => [&[first, 0xFE][..], &(len as u16).to_be_bytes()].concat(),
            len => [&[first, 0xFF][..], &(len as u64).to_be_bytes()].concat(),
        };
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

impl<S: Read + Write> WebSocket<S> {
    /// The handshake, over whatever carries it.
    pub fn over(stream: S) -> Self {
        let mut socket = Self { stream, payload: Vec::new() };
        let answer = socket.request("GET /mqtt HTTP/1.1", &WebSocket::header("Sec-WebSocket-Protocol: mqtt"));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        socket
    }

    fn request(&mut self, first_line: &str, header: &str) -> String {
        self.send_raw(format!("{first_line}\r\nHost: localhost\r\n{header}\r\n").as_bytes());
        let (mut answer, mut byte) = (Vec::new(), [0]);
        // Frames follow a head that accepts, and nothing a text that does not.
        while !(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n")) && self.read(&mut byte)
        {
            answer.extend(byte);
        }
        String::from_utf8(answer).unwrap()
    }

    /// Sends bytes as they are. That the broker has closed already is for the next read to find out.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.flush();
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send_raw(&WebSocket::frame(first, payload));
    }

    /// Sends MQTT bytes in a frame of their own.
    pub fn send(&mut self, bytes: &[u8]) {
        self.send_frame(WebSocket::BINARY, bytes);
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        if !self.read(&mut head) {
            return None;
        }
        assert_eq!(head[1] & 0x80, 0, "a broker does not mask its frames");
        let mut long = [0; 8];
        let len = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        assert!(self.read(&mut long[8 - len..]), "cut in the middle");
        let len = if len == 0 { usize::from(head[1]) } else { u64::from_be_bytes(long) as usize };
        let mut payload = vec![0; len];
        assert!(self.read(&mut payload), "cut in the middle");
        Some((head[0], payload))
    }

    /// Checks the next MQTT bytes, in however many binary frames they come.
    pub fn expect(&mut self, bytes: &[u8]) {
        while self.payload.len() < bytes.len() {
            let (first, payload) = self.next_frame().expect("the connection was closed");
            assert_eq!(first, WebSocket::BINARY, "{payload:02x?}");
            self.payload.extend(payload);
        }
        let received: Vec<u8> = self.payload.drain(..bytes.len()).collect();
        assert_eq!(received, bytes, "{received:02x?} instead of {bytes:02x?}");
    }

    /// Sends MQTT bytes and checks the answer.
    pub fn ask_mqtt(&mut self, bytes: &[u8], answer: &[u8]) {
        self.send(bytes);
        self.expect(answer);
    }

    /// The broker says why by DISCONNECT of 5.0, sends a Close frame, and ends the connection.
    pub fn expect_disconnect(&mut self, reason: u8) {
        self.expect(&[0xE0, 1, reason]);
        self.expect_close(1008);
    }

    /// Nothing more comes but a Close frame with this code, and the end.
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.payload, b"", "bytes before the end");
        let (first, payload) = self.next_frame().expect("the connection ended without a Close frame");
        assert_eq!(first, WebSocket::CLOSE, "{first:02x}, {payload:02x?} instead of Close");
        assert_eq!(payload[..2], code.to_be_bytes(), "{payload:02x?} instead of {code}");
        self.expect_end();
    }

    /// The connection has ended.
    pub fn expect_end(&mut self) {
        assert_eq!(self.next_frame(), None);
    }

    /// What is below.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
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
