//! Frames: lengths, limits, and packets that arrive in pieces.

use super::super::*;
use super::{From, VERSIONS, body, decode, decoder, frame, refused, samples};

const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;

#[test]
fn a_packet_cut_anywhere_is_waited_for() {
    for version in VERSIONS {
        for (from, bytes) in samples(version) {
            for cut in 0..bytes.len() {
                let mut decoder = decoder(from, version, &bytes);
                assert_eq!(decoder.decode(&bytes[..cut]), Ok(None), "{version:?} {bytes:02x?} cut at {cut}");
            }
            assert!(decode(from, version, &bytes).is_ok(), "{version:?} {from:?} {bytes:02x?}");
        }
    }
}

#[test]
fn packets_are_taken_one_by_one() {
    let mut stream = super::connect(Version::V311);
    let connect_len = stream.len();
    stream.extend_from_slice(&[0xC0, 0, 0x30, 3, 0, 1, b'a', 0xC0]);
    let mut decoder = Decoder::server(100);
    let (_, len) = decoder.decode(&stream).unwrap().unwrap();
    assert_eq!(len, connect_len);
    let (packet, len) = decoder.decode(&stream[connect_len..]).unwrap().unwrap();
    assert_eq!((packet, len), (Packet::Pingreq, 2));
    let (_, len) = decoder.decode(&stream[connect_len + 2..]).unwrap().unwrap();
    assert_eq!(len, 5);
    assert_eq!(decoder.decode(&stream[connect_len + 7..]), Ok(None));
}

/// Every prefix of every body, with a length that says that it is the whole: none is waited for, and
/// those that are accepted are other packets of the specification.
#[test]
fn truncated_field_in_complete_frame() {
    for version in VERSIONS {
        for (from, bytes) in samples(version) {
            let whole = body(&bytes);
            for cut in 0..whole.len() {
                let cut_frame = frame(bytes[0], &[&whole[..cut]]);
                match decode(from, version, &cut_frame) {
                    Ok(packet) => assert!(may_be_shorter(&packet, version), "{packet:?} of {cut_frame:02x?}"),
                    Err(error) => assert!(is_truncation(error.reason), "{error} of {cut_frame:02x?}"),
                }
            }
        }
    }
}

/// A packet that is a valid packet also without its last bytes.
fn may_be_shorter(packet: &Packet<'_>, version: Version) -> bool {
    match packet {
        // Shorter payloads, lists and short forms; a will that has lost user name and password is no match
        // for its flags, but in 3.1.
        Packet::Publish(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Suback(_) => true,
        Packet::Connect(_) => version == Version::V31,
        _ => version == Version::V5,
    }
}

fn is_truncation(reason: ReasonCode) -> bool {
    // An empty list and a missing authentication method are protocol errors by the specification.
    matches!(reason, ReasonCode::MalformedPacket | ReasonCode::ProtocolError)
}

#[test]
fn trailing_bytes() {
    for version in VERSIONS {
        for (from, bytes) in samples(version) {
            let longer = frame(bytes[0], &[body(&bytes), &[0]]);
            let is_list_or_payload = matches!(bytes[0] >> 4, 3 | 9 | 11) && body(&bytes).len() > 2;
            let is_short_form = version == Version::V5 && body(&bytes).len() <= 3;
            if is_list_or_payload || is_short_form && !matches!(bytes[0] >> 4, 12 | 13) {
                continue;
            }
            refused(from, version, &longer, MALFORMED);
        }
    }
}

#[test]
fn first_packet_not_connect() {
    for first in (0..=255).filter(|first| first >> 4 != 1) {
        assert!(Decoder::server(100).decode(&[first]).is_err(), "{first:02x}");
    }
    let error = Decoder::server(100).decode(&[0x30]).unwrap_err();
    assert_eq!(error.reason, ReasonCode::ProtocolError);
    assert_eq!(Decoder::server(100).decode(&[0x11]).unwrap_err().reason, MALFORMED);
}

#[test]
fn connect_that_ends_within_its_client_id_has_no_version_to_answer_in() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let connect = super::connect(version);
        for len in 0..body(&connect).len() {
            let cut = frame(0x10, &[&body(&connect)[..len]]);
            let mut decoder = Decoder::server(100);
            assert_eq!(decoder.decode(&cut).unwrap_err().reason, MALFORMED, "{cut:02x?}");
            assert_eq!(decoder.version(), None, "{cut:02x?}");
        }
        let trailing = frame(0x10, &[body(&connect), &[0]]);
        let mut decoder = Decoder::server(100);
        assert_eq!(decoder.decode(&trailing).unwrap_err().reason, MALFORMED);
        assert_eq!(decoder.version(), Some(version));
    }
}

#[test]
fn connect_with_a_property_length_that_leads_out_of_it_is_answered() {
    let mut body = body(&super::connect(Version::V5)).to_vec();
    body[10] = 0x7F;
    let mut decoder = Decoder::server(100);
    assert_eq!(decoder.decode(&frame(0x10, &[&body])).unwrap_err().reason, MALFORMED);
    assert_eq!(decoder.version(), Some(Version::V5));
}

#[test]
fn second_connect() {
    let connect = super::connect(Version::V5);
    let mut decoder = Decoder::server(100);
    decoder.decode(&connect).unwrap().unwrap();
    assert_eq!(decoder.decode(&connect[..1]).unwrap_err().reason, ReasonCode::ProtocolError);
}

#[test]
fn the_limit_counts_the_fixed_header_and_is_known_from_it() {
    let mut decoder = Decoder::client(Version::V311, 130);
    assert_eq!(decoder.decode(&[0x30, 127]), Ok(None));
    assert_eq!(decoder.frame_len(&[0x30, 127]), Ok(Some(129)));
    assert_eq!(decoder.frame_len(&[0x30]), Ok(None));
    let error = decoder.decode(&[0x30, 0x80, 1]).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    let error = Decoder::server(64 * 1024).frame_len(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    let largest = Decoder::client(Version::V311, MAX_PACKET_SIZE);
    let announced = largest.frame_len(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(announced, Ok(Some(MAX_PACKET_SIZE as usize)));
}

#[test]
fn variable_byte_integers_are_short_and_minimal() {
    for remaining_length in [
        &[0x80, 0][..],
        &[0x81, 0],
        &[0xFF, 0x80, 0],
        &[0x80, 0x80, 0x80, 0x80],
        &[0x80, 0x80, 0x80, 0x80, 1],
    ] {
        let bytes = [&[0x30], remaining_length].concat();
        let error = Decoder::client(Version::V5, 100).decode(&bytes).unwrap_err();
        assert_eq!(error.reason, MALFORMED, "{bytes:02x?}");
    }
    for property_length in [&[0x80, 0][..], &[0x80, 0x80, 0x80, 0x80, 1], &[0x80], &[1], &[]] {
        refused(From::Client, Version::V5, &frame(0x30, &[&[0, 1, b'a'], property_length]), MALFORMED);
    }
    for id in [&[0x81, 0][..], &[0x80, 0x80, 0x80, 0x80, 1], &[0x80]] {
        let properties = super::block(&[&[0x0B], id]);
        let bytes = frame(0x82, &[&[0, 1], &properties, &[0, 1, b'a', 0]]);
        refused(From::Client, Version::V5, &bytes, MALFORMED);
    }
    let properties = super::block(&[&[0x0B, 0xFF, 0xFF, 0xFF, 0x7F]]);
    let bytes = frame(0x82, &[&[0, 1], &properties, &[0, 1, b'a', 0]]);
    let Ok(Packet::Subscribe(subscribe)) = decode(From::Client, Version::V5, &bytes) else { panic!() };
    assert_eq!(subscribe.subscription_id, Some(268_435_455));
}

#[test]
fn a_property_value_stays_within_the_property_length() {
    let bytes = frame(0x30, &[&[0, 1, b'a'], &[2, 0x23, 0], &[3, b'x']]);
    refused(From::Client, Version::V5, &bytes, MALFORMED);
}

/// Nanoseconds that this thread has run, where the system says so: others run beside it. As exact as its
/// clock tick.
fn time_on_cpu() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    said.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// Many user properties in one packet take as long as the same number in many packets, for each packet that
/// clients put them in; one look back for each would take a hundred times as long.
#[test]
fn user_property_flood() {
    let time = |count: usize, packets: usize| {
        let properties = super::block(&[&b"\x26\0\x04name\0\x05value".repeat(count)]);
        let connect = frame(0x10, &[b"\0\x04MQTT\x05\x02\0\0", &properties, b"\0\x01x"]);
        let publish = frame(0x30, &[b"\0\x01a", &properties]);
        let subscribe = frame(0x82, &[b"\0\x01", &properties, b"\0\x01a\0"]);
        [connect, publish, subscribe].map(|packet| {
            let since = time_on_cpu();
            (0..packets).for_each(|_| assert!(decode(From::Client, Version::V5, &packet).is_ok()));
            time_on_cpu() - since
        })
    };
    for (few, many) in time(500, 200).into_iter().zip(time(50_000, 2)) {
        assert!(many < few * 10 + 20_000_000, "{few} ns became {many} ns");
    }
}

#[test]
fn decoder_and_error_are_small() {
    assert!(size_of::<Decoder>() <= 8);
    assert!(size_of::<DecodeError>() <= 24);
    assert!(size_of::<Packet<'_>>() <= 112, "{}", size_of::<Packet<'_>>());
}
