//! The WebSocket layer: frames of a client, right and wrong, through reads of any size, with what the broker
//! writes and says in between; against a plain reading of the whole stream (RFC 6455, section 5).
//!
//! The input makes the client's stream first, frame by frame, and then says what is read and written when.

mod plain;
mod wire;

use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use causeway::transport::Farewell;
use causeway::transport::websocket::{Ended, FrameReader, Replies, Violation, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Input;
use plain::{End, Plain};
use wire::Wire;

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let stream = client_stream(&mut input);
    let plain = Plain::read(&stream);
    read_frames(&stream, &plain, &mut input);
    talk(&stream, &plain, &mut input);
}

/// Up to sixteen frames, most of them right, or bytes as they come.
fn client_stream(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..input.below(17) {
        let kind = input.below(16);
        if kind == 15 {
            let len = usize::from(input.below(32));
            stream.extend_from_slice(input.bytes(len));
            continue;
        }
        let opcode = [2, 2, 2, 0, 0, 0, 9, 9, 10, 8, 8, 1, 3, 11, 2][usize::from(kind)];
        // Seven of eight frames are the last of their message, masked, and without reserved bits.
        let flags = input.byte();
        let first = opcode
            | if flags & 7 == 7 { 0 } else { 0x80 }
            | if flags & 0x38 == 0x38 { flags & 0x40 } else { 0 };
        let (masked, form) = (flags & 0xC0 != 0xC0, input.below(16));
        let len = usize::from(if form & 8 == 0 { u16::from(input.byte()) } else { input.u16() % 2048 });
        let payload = input.bytes(len.min(if opcode > 7 { 130 } else { len }));
        plain::put_frame(&mut stream, first, masked.then_some([form, 1, 0xFF, flags]), payload, form & 7);
    }
    stream
}

/// The frames alone, cut at any place.
fn read_frames(stream: &[u8], plain: &Plain, input: &mut Input<'_>) {
    let (mut reader, mut replies) = (FrameReader::default(), Replies::default());
    let (mut payload, mut answers, mut rest) = (Vec::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1 + usize::from(input.byte())));
        rest = later;
        let mut bytes = now.to_vec();
        let kept = reader.read(&mut bytes, &mut replies);
        payload.extend_from_slice(&bytes[..kept]);
        answers.extend_from_slice(replies.bytes());
        replies.advance(replies.bytes().len());
        // At most one more: the latest that had found no room.
        answers.extend_from_slice(replies.bytes());
        replies.advance(replies.bytes().len());
        assert!(replies.bytes().is_empty());
    }
    assert!(payload == plain.payload, "{} bytes of payload are {}", plain.payload.len(), payload.len());
    assert_eq!(reader.ended().map(end), plain.end);
    let (pongs, rest) = plain::server_frames(&answers);
    assert!(rest.is_empty() && pongs.iter().all(|(first, _)| *first == 0x8A));
    plain.check_pongs(&pongs.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), false);
    if plain.end.is_some() {
        let mut more = *b"\x82\x81\0\0\0\0more";
        assert_eq!(reader.read(&mut more, &mut replies), 0, "taken after the end");
    }
}

fn end(ended: Ended) -> End {
    match ended {
        Ended::ByClient(code) => End::Close(code.into()),
        Ended::By(violation) => End::Violation(violation),
    }
}

/// The broker's end of a connection, and what has passed through it.
struct Talk<'a> {
    plain: &'a Plain,
    wire: Wire,
    socket: WebSocket<Wire>,
    read: Vec<u8>,
    written: Vec<u8>,
    /// What the next write has to begin with.
    unwritten: Vec<u8>,
}

/// A connection, on which both sides speak.
fn talk(stream: &[u8], plain: &Plain, input: &mut Input<'_>) {
    let early = usize::from(input.byte()).min(stream.len());
    let wire = Wire::new(&stream[early..]);
    let socket = WebSocket::new(wire.clone(), stream[..early].to_vec());
    let (read, written, unwritten) = Default::default();
    let mut talk = Talk { plain, wire, socket, read, written, unwritten };
    let farewell = input.pick(&[Farewell::Done, Farewell::GoingAway, Farewell::Refused]);
    let is_abrupt = input.below(4) == 3;
    while !input.is_empty() {
        match input.below(8) {
            0 => talk.wire.pipe().room += usize::from(input.byte()),
            1 | 2 => talk.wire.pipe().arrived += usize::from(input.byte()),
            3..6 => drop(talk.read_some(1 + usize::from(input.byte()))),
            6 => talk.write_some(usize::from(input.byte())),
            _ => drop(Pin::new(&mut talk.socket).poll_flush(&mut context())),
        }
    }
    talk.finish(farewell, is_abrupt);
}

impl Talk<'_> {
    /// One read; true when it was the last.
    fn read_some(&mut self, len: usize) -> bool {
        let mut bytes = vec![0; len];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.socket).poll_read(&mut context(), &mut buffer) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) => {
                self.read.extend_from_slice(buffer.filled());
                assert!(self.plain.payload.starts_with(&self.read), "payload that was not sent");
                if !buffer.filled().is_empty() {
                    return false;
                }
                let is_closed = matches!(self.plain.end, Some(End::Close(_)));
                assert!(is_closed || self.wire.pipe().is_read(), "the end before the end");
            }
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(matches!(self.plain.end, Some(End::Violation(_))), "{error}");
            }
        }
        assert!(self.read == self.plain.payload, "the end before all payload");
        true
    }

    /// Writes what has to come first, and so many bytes after it.
    fn write_some(&mut self, len: usize) {
        let number = self.written.len() + self.unwritten.len();
        self.unwritten.extend((number..number + len).map(|number| number as u8));
        let (front, back) = self.unwritten.split_at(self.unwritten.len() / 2);
        let slices = [IoSlice::new(front), IoSlice::new(back)];
        if let Poll::Ready(taken) = Pin::new(&mut self.socket).poll_write_vectored(&mut context(), &slices) {
            self.written.extend(self.unwritten.drain(..taken.unwrap()));
        }
    }

    /// Everything arrives, everything is taken, and the broker ends it.
    fn finish(mut self, farewell: Farewell, is_abrupt: bool) {
        self.wire.pipe().arrived = usize::MAX;
        let (mut reads, most) = (0, 10 + self.plain.payload.len() + self.plain.pings.len());
        while !self.read_some(64) {
            reads += 1;
            assert!(reads < most, "a read that makes no progress");
        }
        self.wire.pipe().room = usize::MAX >> 1;
        while !is_abrupt && !self.unwritten.is_empty() {
            self.write_some(0);
        }
        self.socket.set_farewell(farewell);
        let done = Pin::new(&mut self.socket).poll_shutdown(&mut context());
        assert!(matches!(done, Poll::Ready(Ok(()))) && self.wire.pipe().is_shut);
        let pipe = self.wire.pipe();
        let (frames, rest) = plain::server_frames(&pipe.to_client);
        let of = |first| frames.iter().filter(move |frame| frame.0 == first).map(|frame| &frame.1[..]);
        assert!(frames.iter().all(|(first, _)| matches!(first, 0x82 | 0x88 | 0x8A)), "{frames:02x?}");
        let pongs: Vec<_> = of(0x8A).map(<[u8]>::to_vec).collect();
        self.plain.check_pongs(&pongs, true);
        let data = of(0x82).collect::<Vec<_>>().concat();
        assert!(self.written.starts_with(&data), "what is sent is what was written");
        let closes = of(0x88).count();
        if closes == 0 {
            assert!(is_abrupt && !self.unwritten.is_empty(), "no Close frame: {frames:02x?}");
            return;
        }
        let code = self.expected_code(farewell).to_be_bytes();
        assert!(closes == 1 && rest.is_empty() && data.len() == self.written.len(), "{frames:02x?}");
        assert!(frames.last().is_some_and(|(first, why)| *first == 0x88 && why.starts_with(&code)));
    }

    fn expected_code(&self, farewell: Farewell) -> u16 {
        match (self.plain.end, farewell) {
            (Some(End::Close(code)), _) => code,
            (Some(End::Violation(Violation::Text)), _) => 1003,
            (Some(End::Violation(_)), _) => 1002,
            (None, Farewell::Done) => 1000,
            (None, Farewell::GoingAway) => 1001,
            (None, Farewell::Refused) => 1008,
        }
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
