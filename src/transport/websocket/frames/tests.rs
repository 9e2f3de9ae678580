//! Frames however they are cut, rules that are broken, and what tungstenite makes of the same bytes.

use std::io::{self, Read, Write};

use proptest::{collection::vec, prelude::*};
use tungstenite::{Error, Message, WebSocket, protocol::Role};

use super::*;

const CONTINUATION: u8 = 0x00;
const TEXT: u8 = 0x01;
const BINARY: u8 = 0x02;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const FIN: u8 = 0x80;

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xA1, 0x02, 0xC3, 0xFF];
    let mut bytes = match payload.len() {
        len @ ..126 => vec![first, 0x80 | len as u8],
        len @ ..0x1_0000 => [&[first, 0xFE][..], &(len as u16).to_be_bytes()].concat(),
        len => [&[first, 0xFF][..], &(len as u64).to_be_bytes()].concat(),
    };
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Payload, answers and end of bytes that come in these pieces.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<u8>, Option<Ended>) {
    let (mut reader, mut replies) = (FrameReader::default(), Replies::default());
    let (mut payload, mut answers) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let kept = reader.read(&mut piece, &mut replies);
        payload.extend_from_slice(&piece[..kept]);
        answers.extend_from_slice(replies.bytes());
        replies.advance(usize::MAX);
    }
    (payload, answers, reader.ended())
}

#[test]
fn the_cut_makes_no_difference() {
    let bytes = [
        frame(FIN | BINARY, b"one"),
        frame(BINARY, b" two"),
        frame(PING, b"hello"),
        frame(CONTINUATION, b""),
        frame(FIN | CONTINUATION, b" three"),
        frame(FIN | BINARY, &[7; 200]),
        frame(CLOSE, &[0x03, 0xE8]),
        frame(FIN | BINARY, b"too late"),
    ]
    .concat();
    let expected = (
        [&b"one two three"[..], &[7; 200]].concat(),
        b"\x8A\x05hello".to_vec(),
        Some(Ended::ByClient(CloseCode::Normal)),
    );
    assert_eq!(read([&bytes[..]]), expected);
    for cut in 1..bytes.len() {
        let (front, back) = bytes.split_at(cut);
        assert_eq!(read([front, back]), expected, "cut at {cut}");
    }
    assert_eq!(read(bytes.chunks(1)), expected);
}

#[test]
fn every_rule() {
    let long_ping = frame(PING, &[0; 126]);
    let cases: &[(&[u8], Violation)] = &[
        (&frame(FIN | TEXT, b"x"), Violation::Text),
        (&frame(TEXT, b""), Violation::Text),
        (&[FIN | BINARY, 1, b'x'], Violation::Unmasked),
        (&[PING, 0], Violation::Unmasked),
        (&frame(0xC2, b"x"), Violation::ReservedBit),
        (&frame(0xA2, b"x"), Violation::ReservedBit),
        (&frame(0x92, b"x"), Violation::ReservedBit),
        (&frame(0x83, b"x"), Violation::Opcode),
        (&frame(0x8B, b"x"), Violation::Opcode),
        (&[FIN | BINARY, 0xFE, 0, 125, 0, 0, 0, 0], Violation::Length),
        (&[FIN | BINARY, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], Violation::Length),
        (&[FIN | BINARY, 0xFF, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
        (&long_ping, Violation::Control),
        (&frame(0x09, b"x"), Violation::Control),
        (&frame(0x08, b""), Violation::Control),
        (&frame(FIN | CONTINUATION, b"x"), Violation::Continuation),
        (&[frame(BINARY, b""), frame(FIN | BINARY, b"")].concat(), Violation::Unfinished),
        (&frame(CLOSE, &[3]), Violation::Close),
        (&frame(CLOSE, &[0x03, 0xED]), Violation::Close),
        (&frame(CLOSE, &[0, 0]), Violation::Close),
        (&frame(CLOSE, &[0x03, 0xE8, 0xFF]), Violation::Close),
    ];
    for (bytes, violation) in cases {
        let good = frame(FIN | BINARY, b"good");
        let (payload, _, ended) = read([&[&good, *bytes, &good].concat()[..]]);
        assert_eq!(payload, b"good", "{violation:?}: what came before counts, what comes after does not");
        assert_eq!(ended, Some(Ended::By(*violation)), "{bytes:02x?}");
        let code = if *violation == Violation::Text { 1003 } else { 1002 };
        assert_eq!(u16::from(violation.code()), code);
    }
}

#[test]
fn an_end_is_told_with_its_code() {
    for (payload, code) in [(&b""[..], 1000), (&[0x03, 0xE9, b'x'], 1001), (&[0x0F, 0xA0], 4000)] {
        let (_, _, ended) = read([&frame(CLOSE, payload)[..]]);
        assert_eq!(ended, Some(Ended::ByClient(CloseCode::from(code))));
    }
}

#[test]
fn pings_whose_answers_are_not_taken_cost_a_constant_and_the_last_is_answered() {
    let (mut reader, mut replies) = (FrameReader::default(), Replies::default());
    for number in 0..10_000_u32 {
        assert_eq!(
            reader.read(&mut frame(PING, &[&[0; 100][..], &number.to_be_bytes()].concat()), &mut replies),
            0
        );
        assert!(replies.bytes().len() < REPLIES_MAX + 2 + CONTROL_MAX);
    }
    replies.advance(replies.bytes().len());
    assert_eq!(replies.bytes()[102..], 9_999_u32.to_be_bytes());
    replies.advance(replies.bytes().len());
    assert!(replies.bytes().is_empty());
}

#[test]
fn the_reason_of_an_end_fits_into_its_frame() {
    let mut replies = Replies::default();
    replies.close(CloseCode::Policy, &"x".repeat(500));
    assert_eq!(replies.bytes()[..4], [0x88, 125, 0x03, 0xF0]);
    assert_eq!(replies.bytes().len(), 127);
}

/// A message in fragments, with pings in between.
fn message() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    let lengths = prop_oneof![0..4_usize, 120..130_usize, 65_530..65_540_usize];
    let payload = (lengths, any::<u8>()).prop_map(|(len, first)| {
        (0..len).map(|at| first.wrapping_add(at as u8).wrapping_add((at >> 8) as u8)).collect()
    });
    vec((payload, any::<bool>()), 1..4)
}

fn frames_of(message: &[(Vec<u8>, bool)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (payload, ping)) in message.iter().enumerate() {
        let opcode = if index == 0 { BINARY } else { CONTINUATION };
        let fin = if index + 1 == message.len() { FIN } else { 0 };
        bytes.extend(frame(fin | opcode, payload));
        bytes.extend(ping.then(|| frame(PING, &payload[..payload.len().min(125)])).into_iter().flatten());
    }
    bytes
}

/// What tungstenite reads from the same bytes, and how that ended.
fn second_opinion(bytes: &[u8]) -> (Vec<u8>, Error) {
    struct Io<'a>(&'a [u8]);
    impl Read for Io<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Io<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut socket = WebSocket::from_raw_socket(Io(bytes), Role::Server, None);
    let mut payload = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(message)) => payload.extend_from_slice(&message),
            Ok(_) => {}
            Err(error) => return (payload, error),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_fragments_in_any_pieces_are_the_same_bytes(
        messages in vec(message(), 1..4),
        cuts in vec(1..2000_usize, 1..20),
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| frames_of(message)).collect();
        let expected: Vec<u8> = messages.iter().flatten().flat_map(|(payload, _)| payload.clone()).collect();
        let (mut rest, mut pieces) = (&bytes[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (front, back) = rest.split_at(*cut.min(&rest.len()));
            pieces.push(front);
            rest = back;
            if rest.is_empty() {
                break;
            }
        }
        let (payload, _, ended) = read(pieces);
        prop_assert_eq!(ended, None);
        prop_assert!(payload == expected);
    }

    #[test]
    fn tungstenite_reads_the_same_and_refuses_no_more(
        messages in vec(vec((vec(any::<u8>(), 0..40), any::<bool>()), 1..4), 1..5),
        spoiled in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes: Vec<u8> = messages.iter().flat_map(|message| frames_of(message)).collect();
        for (index, byte) in spoiled {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let (ours, _, ended) = read([&bytes[..]]);
        let (theirs, error) = second_opinion(&bytes);
        // A message is theirs when it is complete, and ours while it arrives.
        prop_assert!(ours.starts_with(&theirs) || matches!(ended, Some(Ended::By(Violation::Text | Violation::Length))));
        let refused = matches!(error, Error::Protocol(
            tungstenite::error::ProtocolError::UnmaskedFrameFromClient
            | tungstenite::error::ProtocolError::NonZeroReservedBits
            | tungstenite::error::ProtocolError::InvalidOpcode(_)
            | tungstenite::error::ProtocolError::FragmentedControlFrame
            | tungstenite::error::ProtocolError::ControlFrameTooBig
            | tungstenite::error::ProtocolError::UnexpectedContinueFrame
            | tungstenite::error::ProtocolError::ExpectedFragment(_)
            | tungstenite::error::ProtocolError::InvalidCloseSequence
        ));
        prop_assert!(!refused || matches!(ended, Some(Ended::By(_))), "only they refuse: {error}, {ended:?}");
    }
}
