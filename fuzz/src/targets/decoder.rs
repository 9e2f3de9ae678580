//! A stream of bytes, decoded in one piece and cut at every byte: the same packets, the same end.
//!
//! The first byte says whose stream it is, the second how large a packet may be.

use causeway::codec::{DecodeError, Decoder, Packet, Version};

use super::Input;
use super::packets::{Peer, check};

/// Streams up to this long are also cut once at each byte, with everything else in one piece.
const CUT_ONCE_MAX: usize = 96;

/// What a decoder made of a stream.
#[derive(Debug, PartialEq)]
struct Decoded<'a> {
    packets: Vec<Packet<'a>>,
    /// Bytes that these had.
    consumed: usize,
    error: Option<DecodeError>,
    version: Option<Version>,
}

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let (peer, limit) =
        (Peer::choose(&mut input), input.pick(&[1 << 20, 268_435_460, 17, 30, 64, 127, 128, 300]));
    let stream = input.0;
    let whole = decode(peer.decoder(limit), stream, [stream.len()]);
    whole.packets.iter().for_each(|packet| check(whole.version.unwrap(), packet));
    let byte_by_byte = decode(peer.decoder(limit), stream, 1..=stream.len());
    assert_eq!(byte_by_byte, whole, "{peer:?}, byte by byte");
    for cut in 0..stream.len().min(CUT_ONCE_MAX) {
        let cut_once = decode(peer.decoder(limit), stream, [cut, stream.len()]);
        assert_eq!(cut_once, whole, "{peer:?}, cut at {cut}");
    }
}

/// Decodes what has arrived each time the stream has grown to one of these lengths.
fn decode(mut decoder: Decoder, stream: &[u8], lengths: impl IntoIterator<Item = usize>) -> Decoded<'_> {
    let (mut packets, mut consumed, mut error) = (Vec::new(), 0, None);
    for arrived in lengths {
        while error.is_none() {
            match next(&mut decoder, &stream[consumed..arrived]) {
                Ok(Some((packet, len))) => {
                    packets.push(packet);
                    consumed += len;
                }
                Ok(None) => break,
                Err(wrong) => error = Some(wrong),
            }
        }
    }
    Decoded { packets, consumed, error, version: decoder.version() }
}

/// One packet, and what its fixed header alone has to say about it.
fn next<'a>(decoder: &mut Decoder, bytes: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let announced = decoder.frame_len(bytes);
    let decoded = decoder.decode(bytes);
    match (&announced, &decoded) {
        (Ok(Some(len)), Ok(Some((_, taken)))) => assert!(len == taken && *len <= bytes.len()),
        (Ok(Some(len)), Ok(None)) => assert!(*len > bytes.len()),
        (Ok(Some(len)), Err(_)) => assert!(*len <= bytes.len(), "judged before it was whole"),
        (Ok(None), Ok(None)) => assert!(bytes.len() < 5),
        (Err(early), Err(error)) => assert_eq!(early, error),
        _ => panic!("{announced:?}, then {decoded:?}"),
    }
    decoded
}
