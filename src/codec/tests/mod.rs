//! The codec judged from outside: golden packets, matrices, round trips, mutations.

mod encoding;
mod golden;
mod limits;
mod matrix;
mod mutation;
mod round_trip;

use super::{DecodeError, Decoder, Packet, ReasonCode, Version};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const LIMIT: u32 = 1 << 20;

/// Who sends a packet, as a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

/// A string or binary field with its length.
fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut field = (bytes.len() as u16).to_be_bytes().to_vec();
    field.extend_from_slice(bytes);
    field
}

/// `parts` in one piece.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// `parts` after their length as a variable byte integer.
fn block(parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    let mut block = varint(bytes.len());
    block.extend_from_slice(&bytes);
    block
}

/// A packet with this first byte and body.
fn frame(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = vec![first];
    frame.extend_from_slice(&block(parts));
    frame
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 0x80);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// The body of a packet.
fn body(frame: &[u8]) -> &[u8] {
    let len = frame[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &frame[1 + len..]
}

/// The smallest CONNECT.
fn connect(version: Version) -> Vec<u8> {
    match version {
        Version::V31 => frame(0x10, &[&field("MQIsdp"), &[3, 2, 0, 9], &field("c")]),
        Version::V311 => frame(0x10, &[&field("MQTT"), &[4, 2, 0, 9], &field("c")]),
        Version::V5 => frame(0x10, &[&field("MQTT"), &[5, 2, 0, 9, 0], &field("c")]),
    }
}

/// A decoder in the state in which this packet of `from` can come.
fn decoder(from: From, version: Version, input: &[u8]) -> Decoder {
    let is_connect = input.first().is_some_and(|first| first >> 4 == 1);
    if from == From::Server {
        return Decoder::client(version, LIMIT);
    }
    let mut decoder = Decoder::server(LIMIT);
    if !is_connect {
        decoder.decode(&connect(version)).unwrap();
    }
    decoder
}

/// What `input` is, if it is exactly one packet.
fn decode(from: From, version: Version, input: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match decoder(from, version, input).decode(input)? {
        Some((packet, len)) if len == input.len() => Ok(packet),
        other => panic!("not one whole packet: {other:?} of {input:02x?}"),
    }
}

#[track_caller]
fn refused(from: From, version: Version, input: &[u8], reason: ReasonCode) {
    match decode(from, version, input) {
        Err(error) => assert_eq!(error.reason, reason, "{error}, {version:?} {from:?} {input:02x?}"),
        Ok(packet) => panic!("accepted {packet:?}, {version:?} {from:?} {input:02x?}"),
    }
}

/// Valid packets of a version that together have every field of every packet.
fn samples(version: Version) -> Vec<(From, Vec<u8>)> {
    let mut samples = client_samples(version);
    samples.extend(server_samples(version));
    for from in [From::Client, From::Server] {
        samples.extend(shared_samples(version, from).into_iter().map(|bytes| (from, bytes)));
    }
    samples
}

fn user_property() -> Vec<u8> {
    join(&[&[0x26], &field("name"), &field("value")])
}

fn reason_string() -> Vec<u8> {
    join(&[&[0x1F], &field("why")])
}

/// `parts` as a property block, before 5.0 nothing.
fn properties(version: Version, parts: &[&[u8]]) -> Vec<u8> {
    if version == Version::V5 { block(parts) } else { Vec::new() }
}

fn client_samples(version: Version) -> Vec<(From, Vec<u8>)> {
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let connect_properties = properties(
        version,
        &[
            &[0x11, 0, 0, 0, 9, 0x21, 0, 7, 0x27, 0, 0, 4, 0, 0x22, 0, 3, 0x19, 1, 0x17, 0, 0x15],
            &field("m"),
            &[0x16],
            &field([0xFF, 0]),
            &user_property(),
        ],
    );
    let will_properties = properties(version, &[&[0x18, 0, 0, 0, 5], &message_properties()]);
    let subscribe_properties = properties(version, &[&[0x0B, 0x80, 1], &user_property()]);
    let options = if version == Version::V5 { 0b10_1110 } else { 2 };
    let mut samples = vec![
        connect(version),
        frame(
            0x10,
            &[
                &field(name),
                &[level, 0xEE, 0, 30],
                &connect_properties,
                &field("client"),
                &will_properties,
                &field("w/t"),
                &field([0, 0xFF]),
                &field("user"),
                &field([0xFE, 0]),
            ],
        ),
        frame(0x82, &[&[0, 1], &subscribe_properties, &field("a/+"), &[options], &field("#"), &[0]]),
        frame(0xA2, &[&[0, 1], &properties(version, &[&user_property()]), &field("a/+"), &field("b")]),
        frame(0xC0, &[]),
        frame(0xE0, &[]),
    ];
    if version == Version::V5 {
        let expiry = [0x11, 0, 0, 0, 1];
        samples.push(frame(0xE0, &[&[4], &block(&[&expiry, &reason_string(), &user_property()])]));
    }
    samples.into_iter().map(|bytes| (From::Client, bytes)).collect()
}

fn server_samples(version: Version) -> Vec<(From, Vec<u8>)> {
    let ack_properties = properties(version, &[&reason_string(), &user_property()]);
    let refusal = if version == Version::V5 { 0x87 } else { 5 };
    let mut samples = vec![
        frame(0x20, &[&[0, refusal], &properties(version, &[])]),
        frame(0x90, &[&[0, 1], &ack_properties, &[0, 1, 2, 0x80]]),
        frame(0xD0, &[]),
    ];
    if version != Version::V5 {
        samples.push(frame(0x20, &[&[1, 0]]));
        samples.push(frame(0xB0, &[&[0, 1]]));
        return samples.into_iter().map(|bytes| (From::Server, bytes)).collect();
    }
    samples.push(frame(0x20, &[&[1, 0], &connack_properties()]));
    samples.push(frame(0xB0, &[&[0, 1], &ack_properties, &[0, 0x11, 0x87]]));
    samples.push(frame(
        0xE0,
        &[&[0x9D], &block(&[&reason_string(), &join(&[&[0x1C], &field("other")]), &user_property()])],
    ));
    samples.into_iter().map(|bytes| (From::Server, bytes)).collect()
}

fn connack_properties() -> Vec<u8> {
    block(&[
        &[0x11, 0, 0, 0, 9, 0x21, 0, 7, 0x24, 1, 0x25, 1, 0x27, 0, 0, 4, 0, 0x12],
        &field("assigned"),
        &[0x22, 0, 3],
        &reason_string(),
        &user_property(),
        &[0x28, 1, 0x29, 0, 0x2A, 1, 0x13, 0, 60, 0x1A],
        &field("info"),
        &[0x1C],
        &field("other"),
        &[0x15],
        &field("m"),
        &[0x16],
        &field([0xFF, 0]),
    ])
}

/// What a PUBLISH and a will can both have.
fn message_properties() -> Vec<u8> {
    join(&[
        &[0x01, 1, 0x02, 0, 0, 0, 7, 0x03],
        &field("text/plain"),
        &user_property(),
        &[0x08],
        &field("re/ply"),
        &[0x09],
        &field([0, 0xFF]),
        &user_property(),
    ])
}

fn shared_samples(version: Version, from: From) -> Vec<Vec<u8>> {
    let ids: &[u8] = if from == From::Server { &[0x0B, 0x80, 1, 0x0B, 5] } else { &[] };
    let publish_properties = properties(version, &[&[0x23, 0, 3], &message_properties(), ids]);
    let mut samples = vec![
        frame(0x30, &[&field("a/b"), &properties(version, &[]), b"payload"]),
        frame(0x3D, &[&field("\u{e9}/x"), &[0, 7], &publish_properties, b"payload"]),
        frame(0x32, &[&field("a"), &[0xFF, 0xFF], &properties(version, &[])]),
    ];
    for first in [0x40, 0x50, 0x62, 0x70] {
        samples.push(frame(first, &[&[0, 1]]));
    }
    if version != Version::V5 {
        return samples;
    }
    samples.push(frame(0x30, &[&field(""), &block(&[&[0x23, 0, 3]])]));
    let ack_properties = block(&[&reason_string(), &user_property()]);
    for (first, code) in [(0x40, 0x10), (0x50, 0x97), (0x62, 0x92), (0x70, 0x92)] {
        samples.push(frame(first, &[&[0, 1, code]]));
        samples.push(frame(first, &[&[0, 1, code], &ack_properties]));
    }
    samples.push(frame(0xF0, &[]));
    let method = join(&[&[0x15], &field("m"), &[0x16], &field([0, 0xFF])]);
    samples.push(frame(0xF0, &[&[0x18], &block(&[&method, &reason_string(), &user_property()])]));
    samples
}
