//! A second opinion on packets, from the specification and without the broker's own code: is this one a
//! client or a server may send?
//!
//! It says no more than yes or no. Which reason code a no deserves is asked by the tests of single rules.

use crate::harness::Version;

/// Who has sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What there is at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// A beginning that may still become a packet.
    Incomplete,
    /// Nothing that may be sent.
    Wrong,
    /// A packet of this type and length in bytes.
    Right(u8, usize),
}

const CONNECT: u16 = 1;
const CONNACK: u16 = 1 << 1;
const PUBLISH_UP: u16 = 1 << 2;
const PUBLISH_DOWN: u16 = 1 << 3;
const WILL: u16 = 1 << 4;
const ACK: u16 = 1 << 5;
const SUBSCRIBE: u16 = 1 << 6;
const UNSUBSCRIBE: u16 = 1 << 7;
const DISCONNECT_UP: u16 = 1 << 8;
const DISCONNECT_DOWN: u16 = 1 << 9;
const AUTH: u16 = 1 << 10;
const MESSAGE: u16 = PUBLISH_UP | PUBLISH_DOWN | WILL;
const DISCONNECT: u16 = DISCONNECT_UP | DISCONNECT_DOWN;

/// The largest packet, as the broker announces it.
const PACKET_MAX: usize = 1024 * 1024;

/// Judges what follows a CONNECT of this version; without one, a CONNECT.
pub fn judge(version: Option<Version>, side: Side, bytes: &[u8]) -> Judgement {
    let Some((&first, rest)) = bytes.split_first() else { return Judgement::Incomplete };
    if !first_byte_is_right(version, side, first) {
        return Judgement::Wrong;
    }
    let mut cursor = Cursor(rest);
    let Some(length) = cursor.varint() else {
        let is_open = rest.len() < 4 && rest.iter().all(|byte| byte & 0x80 != 0);
        return if is_open { Judgement::Incomplete } else { Judgement::Wrong };
    };
    let head = bytes.len() - cursor.0.len();
    if side == Side::Client && head + length > PACKET_MAX {
        return Judgement::Wrong;
    }
    let Some(body) = cursor.0.get(..length) else { return Judgement::Incomplete };
    let mut body = Cursor(body);
    let is_right = match version {
        None => connect(&mut body),
        Some(version) => packet(version, side, first, &mut body),
    };
    match is_right {
        Some(()) if body.0.is_empty() => Judgement::Right(first >> 4, head + length),
        _ => Judgement::Wrong,
    }
}

fn first_byte_is_right(version: Option<Version>, side: Side, first: u8) -> bool {
    let (kind, flags) = (first >> 4, first & 0x0F);
    let Some(version) = version else { return first == 0x10 };
    let is_sent = match side {
        Side::Client => matches!(kind, 3..=8 | 10 | 12 | 14) || kind == 15 && version == Version::V5,
        Side::Server => matches!(kind, 2..=7 | 9 | 11 | 13) || kind >= 14 && version == Version::V5,
    };
    let repeats = version == Version::V31 && flags == 0b1010;
    is_sent
        && match kind {
            3 => flags & 6 != 6 && (flags & 6 != 0 || flags & 8 == 0),
            6 | 8 | 10 => flags == 2 || repeats,
            _ => flags == 0,
        }
}

fn packet(version: Version, side: Side, first: u8, body: &mut Cursor<'_>) -> Option<()> {
    let is_v5 = version == Version::V5;
    match first >> 4 {
        2 => connack(is_v5, body),
        3 => publish(is_v5, side, first >> 1 & 3, body),
        4 | 5 => acknowledgement(is_v5, body, |code| {
            matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }),
        6 | 7 => acknowledgement(is_v5, body, |code| matches!(code, 0 | 0x92)),
        8 => list(is_v5, SUBSCRIBE, body, |body| subscription(is_v5, body)),
        10 => list(is_v5, UNSUBSCRIBE, body, |body| filter(body).map(drop)),
        9 => list(is_v5, ACK, body, |body| {
            let code = body.u8()?;
            let known = matches!(code, 0..=2 | 0x80);
            let known_to_v5 = matches!(code, 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2);
            when(known || is_v5 && known_to_v5)
        }),
        11 if is_v5 => list(true, ACK, body, |body| {
            when(matches!(body.u8()?, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91))
        }),
        11 => body.id().map(drop),
        14 if is_v5 => disconnect(side, body),
        15 => auth(body),
        _ => Some(()),
    }
}

fn connect(body: &mut Cursor<'_>) -> Option<()> {
    let name = body.text()?;
    let version = match (name, body.u8()?) {
        ("MQIsdp", 3) => Version::V31,
        ("MQTT", 4) => Version::V311,
        ("MQTT", 5) => Version::V5,
        _ => return None,
    };
    let is_v5 = version == Version::V5;
    let flags = body.u8()?;
    let has = |flag: u8| flags & flag != 0;
    when(!has(1) || version == Version::V31)?;
    // Without a will 3.1 asks nothing of the flags of one.
    when(flags & 0x18 != 0x18 && (has(4) || flags & 0x38 == 0) || version == Version::V31 && !has(4))?;
    when(is_v5 || !has(0x40) || has(0x80))?;
    body.u16()?;
    if is_v5 {
        let found = properties(body, CONNECT)?;
        when(!found.has(0x16) || found.has(0x15))?;
    }
    body.text()?;
    if has(4) {
        if is_v5 {
            properties(body, WILL)?;
        }
        when(is_topic_name(body.text()?))?;
        body.binary()?;
    }
    // 3.1 lets both be missing in spite of their flags.
    let may_end = version == Version::V31;
    if has(0x80) && !(may_end && body.0.is_empty()) {
        body.text()?;
    }
    if has(0x40) && !(may_end && body.0.is_empty()) {
        body.binary()?;
    }
    Some(())
}

fn connack(is_v5: bool, body: &mut Cursor<'_>) -> Option<()> {
    let (flags, code) = (body.u8()?, body.u8()?);
    when(flags == 0 || flags == 1 && code == 0)?;
    if is_v5 { properties(body, CONNACK).map(drop) } else { when(code <= 5) }
}

fn publish(is_v5: bool, side: Side, qos: u8, body: &mut Cursor<'_>) -> Option<()> {
    let topic = body.text()?;
    when(topic.is_empty() || is_topic_name(topic))?;
    if qos > 0 {
        body.id()?;
    }
    let mut has_alias = false;
    if is_v5 {
        let place = if side == Side::Client { PUBLISH_UP } else { PUBLISH_DOWN };
        has_alias = properties(body, place)?.has(0x23);
    }
    body.0 = &[];
    when(!topic.is_empty() || has_alias)
}

fn acknowledgement(is_v5: bool, body: &mut Cursor<'_>, is_code: impl Fn(u8) -> bool) -> Option<()> {
    body.id()?;
    if !is_v5 || body.0.is_empty() {
        return Some(());
    }
    when(is_code(body.u8()?))?;
    if body.0.is_empty() { Some(()) } else { properties(body, ACK).map(drop) }
}

/// SUBSCRIBE, UNSUBSCRIBE and their answers: an identifier, properties, and at least one entry.
fn list(
    is_v5: bool,
    place: u16,
    body: &mut Cursor<'_>,
    entry: impl Fn(&mut Cursor<'_>) -> Option<()>,
) -> Option<()> {
    body.id()?;
    if is_v5 {
        properties(body, place)?;
    }
    when(!body.0.is_empty())?;
    while !body.0.is_empty() {
        entry(body)?;
    }
    Some(())
}

fn subscription(is_v5: bool, body: &mut Cursor<'_>) -> Option<()> {
    let is_shared = filter(body)?;
    let options = body.u8()?;
    when(options & 3 != 3)?;
    let reserved = if is_v5 { 0xC0 } else { 0xFC };
    when(options & reserved == 0 && options & 0x30 != 0x30)?;
    when(!(is_shared && options & 4 != 0))
}

/// True for a shared subscription that is one; what only looks like one is for SUBACK to refuse.
fn filter(body: &mut Cursor<'_>) -> Option<bool> {
    let text = body.text()?;
    let Some(shared) = text.strip_prefix("$share/") else {
        when(text == "$share" || is_filter(text))?;
        return Some(false);
    };
    let Some((name, filter)) = shared.split_once('/') else { return Some(false) };
    if name.is_empty() || name.contains(['+', '#']) || filter.is_empty() {
        return Some(false);
    }
    when(is_filter(filter))?;
    Some(true)
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<_> = text.split('/').collect();
    let last = levels.len() - 1;
    let is_level = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        name => !name.contains(['+', '#']),
    };
    !text.is_empty() && levels.len() <= 200 && levels.iter().enumerate().all(is_level)
}

fn is_topic_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#']) && text.split('/').count() <= 200
}

fn disconnect(side: Side, body: &mut Cursor<'_>) -> Option<()> {
    if body.0.is_empty() {
        return Some(());
    }
    let code = body.u8()?;
    when(matches!(code, 0 | 4 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2))?;
    let place = if side == Side::Client { DISCONNECT_UP } else { DISCONNECT_DOWN };
    if body.0.is_empty() { Some(()) } else { properties(body, place).map(drop) }
}

fn auth(body: &mut Cursor<'_>) -> Option<()> {
    if body.0.is_empty() {
        return Some(());
    }
    when(matches!(body.u8()?, 0 | 0x18 | 0x19))?;
    properties(body, AUTH).map(drop)
}

/// The identifiers that were there.
#[derive(Default)]
struct Found(u64);

impl Found {
    fn has(&self, id: u8) -> bool {
        self.0 >> id & 1 == 1
    }
}

fn properties(cursor: &mut Cursor<'_>, place: u16) -> Option<Found> {
    let length = cursor.varint()?;
    let mut block = Cursor(cursor.take(length)?);
    let mut found = Found::default();
    while !block.0.is_empty() {
        let id = block.u8()?;
        when(places(id) & place != 0)?;
        let repeats = id == 0x26 || id == 0x0B && place == PUBLISH_DOWN;
        when(repeats || !found.has(id))?;
        found.0 |= 1 << id;
        value(id, &mut block)?;
    }
    Some(found)
}

fn places(id: u8) -> u16 {
    match id {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => MESSAGE,
        0x0B => PUBLISH_DOWN | SUBSCRIBE,
        0x11 => CONNECT | CONNACK | DISCONNECT_UP,
        0x12 | 0x13 | 0x1A | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => CONNACK,
        0x15 | 0x16 => CONNECT | CONNACK | AUTH,
        0x17 | 0x19 => CONNECT,
        0x18 => WILL,
        0x1C => CONNACK | DISCONNECT,
        0x1F => CONNACK | ACK | DISCONNECT | AUTH,
        0x21 | 0x22 | 0x27 => CONNECT | CONNACK,
        0x23 => PUBLISH_UP | PUBLISH_DOWN,
        0x26 => u16::MAX,
        _ => 0,
    }
}

fn value(id: u8, block: &mut Cursor<'_>) -> Option<()> {
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => when(block.u8()? <= 1),
        0x02 | 0x11 | 0x18 => block.take(4).map(drop),
        0x27 => when(block.take(4)? != [0; 4]),
        0x0B => when(block.varint()? > 0),
        0x13 | 0x22 => block.u16().map(drop),
        0x21 | 0x23 => when(block.u16()? > 0),
        0x08 => when(is_response_topic(block.text()?)),
        0x09 | 0x16 => block.binary().map(drop),
        0x26 => block.text().and_then(|_| block.text()).map(drop),
        _ => block.text().map(drop),
    }
}

fn is_response_topic(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#'])
}

fn when(is_right: bool) -> Option<()> {
    is_right.then_some(())
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn id(&mut self) -> Option<u16> {
        self.u16().filter(|id| *id > 0)
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.binary()?).ok().filter(|text| !text.contains('\0'))
    }

    /// In its shortest form, and of four bytes at most.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().take(4).enumerate() {
            value |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return (byte != 0 || index == 0).then_some(value);
            }
        }
        None
    }
}
