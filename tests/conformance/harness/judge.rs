//! What holds for every packet that the broker sends, whatever the test is about: its flags, its lengths, the
//! reason codes and properties of its kind. Every packet that a [`super::Client`] reads is judged here.

use super::Version;

/// Panics when a broker may not send this packet to a client of this version.
pub fn judge(packet: &[u8], version: Version) {
    let (length, head) = varint(&packet[1..]);
    let mut body = &packet[1 + head..];
    assert_eq!(body.len(), length);
    let kind = packet[0] >> 4;
    let flags = if kind == 6 { 2 } else { 0 };
    assert!(kind == 3 || packet[0] & 15 == flags, "flags: {packet:02x?}");
    let is_v5 = version == Version::V5;
    match kind {
        2 => {
            assert!(body[0] <= 1, "acknowledge flags: {packet:02x?}");
            assert!(body[0] == 0 || body[1] == 0, "a refusal with a session: {packet:02x?}");
            assert!(if is_v5 { code(kind, body[1]) } else { body[1] <= 5 }, "reason: {packet:02x?}");
            properties(&mut &body[2..], kind, is_v5);
        }
        3 => publish(packet[0], &mut body, is_v5),
        4..=7 => {
            take(&mut body, 2);
            if is_v5 && !body.is_empty() {
                assert!(code(kind, take(&mut body, 1)[0]), "reason: {packet:02x?}");
                let has_properties = !body.is_empty();
                properties(&mut body, kind, has_properties);
            }
            assert!(body.is_empty(), "too long: {packet:02x?}");
        }
        9 | 11 => {
            take(&mut body, 2);
            properties(&mut body, kind, is_v5);
            let is_right = |byte: u8| if is_v5 { code(kind, byte) } else { matches!(byte, 0..=2 | 0x80) };
            assert!(body.iter().all(|byte| is_right(*byte)), "reason: {packet:02x?}");
            assert_eq!(body.is_empty(), !is_v5 && kind == 11, "reasons: {packet:02x?}");
        }
        13 => assert!(body.is_empty(), "{packet:02x?}"),
        14 | 15 => {
            assert!(is_v5, "no packet of this version: {packet:02x?}");
            assert!(body.is_empty() || code(kind, take(&mut body, 1)[0]), "reason: {packet:02x?}");
            let has_properties = !body.is_empty();
            properties(&mut body, kind, has_properties);
        }
        _ => panic!("no packet that a broker sends: {packet:02x?}"),
    }
}

fn publish(first: u8, body: &mut &[u8], is_v5: bool) {
    let qos = first >> 1 & 3;
    assert!(qos < 3 && (qos > 0 || first & 8 == 0), "flags of a PUBLISH: {first:#04x}");
    let topic = text(body);
    assert!(!topic.contains(['+', '#']), "a topic with wildcards: {topic}");
    if qos > 0 {
        assert_ne!(take(body, 2), [0, 0], "the identifier is 0");
    }
    let ids = properties(body, 3, is_v5);
    assert!(!topic.is_empty() || ids.contains(&0x23), "neither topic nor alias");
}

/// Whether the table of this kind of packet has the code for a server.
fn code(kind: u8, code: u8) -> bool {
    match kind {
        2 => matches!(code, 0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F),
        4 | 5 => matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        6 | 7 => matches!(code, 0 | 0x92),
        9 => matches!(code, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2),
        11 => matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
        // 4 is for clients; 8C stands in the table of all codes only.
        14 => matches!(code, 0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2),
        _ => matches!(code, 0 | 0x18 | 0x19),
    }
}

/// The properties that a server may send with this kind of packet, but for the User Property.
fn belonging(kind: u8) -> &'static [u8] {
    match kind {
        2 => {
            &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A]
        }
        3 => &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23],
        14 => &[0x1C, 0x1F],
        15 => &[0x15, 0x16, 0x1F],
        _ => &[0x1F],
    }
}

/// Takes the properties, where there are any, and tells their identifiers.
fn properties(body: &mut &[u8], kind: u8, are_there: bool) -> Vec<u8> {
    let mut ids = Vec::new();
    if !are_there {
        return ids;
    }
    let (length, head) = varint(body);
    take(body, head);
    let mut block = take(body, length);
    while !block.is_empty() {
        let id = take(&mut block, 1)[0];
        assert!(id == 0x26 || belonging(kind).contains(&id), "property {id:#04x} in a packet {kind}");
        let may_repeat = id == 0x26 || id == 0x0B && kind == 3;
        assert!(may_repeat || !ids.contains(&id), "property {id:#04x} twice in a packet {kind}");
        value(id, &mut block);
        ids.push(id);
    }
    ids
}

fn value(id: u8, block: &mut &[u8]) {
    match id {
        0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => assert!(take(block, 1)[0] <= 1, "property {id:#04x}"),
        0x13 | 0x22 => drop(take(block, 2)),
        0x21 | 0x23 => assert_ne!(take(block, 2), [0, 0], "property {id:#04x}"),
        0x02 | 0x11 => drop(take(block, 4)),
        0x27 => assert_ne!(take(block, 4), [0; 4], "property {id:#04x}"),
        0x0B => {
            let (value, length) = varint(block);
            assert_ne!(value, 0, "a subscription identifier");
            take(block, length);
        }
        0x09 | 0x16 => {
            let length = take(block, 2);
            take(block, usize::from(u16::from_be_bytes([length[0], length[1]])));
        }
        0x26 => drop((text(block), text(block))),
        _ => drop(text(block)),
    }
}

fn text(from: &mut &[u8]) -> String {
    let length = take(from, 2);
    let text = take(from, usize::from(u16::from_be_bytes([length[0], length[1]]))).to_vec();
    let text = String::from_utf8(text).unwrap_or_else(|error| panic!("a string that is no UTF-8: {error}"));
    assert!(!text.contains('\0'), "a string with NUL: {text:?}");
    text
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at_checked(length).unwrap_or_else(|| panic!("cut short: {from:02x?}"));
    *from = rest;
    taken
}

/// A variable byte integer, and how many bytes it has: as few as it can.
fn varint(from: &[u8]) -> (usize, usize) {
    let length =
        from.iter().take(4).position(|byte| byte & 0x80 == 0).unwrap_or_else(|| panic!("no end")) + 1;
    assert!(length == 1 || from[length - 1] != 0, "more bytes than needed: {from:02x?}");
    let value = from[..length].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7F));
    (value, length)
}
