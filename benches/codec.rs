//! Nanoseconds per PUBLISH, in and out. Prints a table; the best of many rounds, since other work on the
//! machine only ever adds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use causeway::codec::{Decoder, Packet, PacketId, PublishFrame, Qos, Version};

const PACKETS: usize = 1_000;
const ROUNDS: usize = 300;
const TOPIC: &[u8] = b"plant/line-7/press/telemetry";
/// Content type, and a user property.
const PROPERTIES: &[u8] = b"\x03\0\x10application/json\x26\0\x05trace\0\x084bf92f35";

/// One row of the table.
struct Case {
    name: &'static str,
    version: Version,
    qos: Qos,
    properties: &'static [u8],
    expiry: Option<u32>,
    payload_len: usize,
}

fn main() {
    let base = Case {
        name: "v4 QoS 0, 64 B",
        version: Version::V311,
        qos: Qos::AtMostOnce,
        properties: b"",
        expiry: None,
        payload_len: 64,
    };
    let cases = [
        Case { name: "v4 QoS 1, 64 B", qos: Qos::AtLeastOnce, ..base },
        Case { name: "v5 QoS 0, 64 B", version: Version::V5, ..base },
        Case { name: "v5 QoS 1, 64 B", version: Version::V5, qos: Qos::AtLeastOnce, ..base },
        Case {
            name: "v5 QoS 1, 64 B, 3 properties",
            version: Version::V5,
            qos: Qos::AtLeastOnce,
            properties: PROPERTIES,
            expiry: Some(60),
            ..base
        },
        Case {
            name: "v5 QoS 1, 1 KiB",
            version: Version::V5,
            qos: Qos::AtLeastOnce,
            payload_len: 1024,
            ..base
        },
    ];
    println!("{:<30} {:>10} {:>10} {:>10}", "ns per PUBLISH", "decode", "forward", "encode");
    for case in std::iter::once(&base).chain(&cases) {
        let (decode, forward, encode) = measure(case);
        println!("{:<30} {decode:>10.1} {forward:>10.1} {encode:>10.1}", case.name);
    }
}

/// Decoding; decoding and gathering the forwarded properties; encoding with the payload copied.
fn measure(case: &Case) -> (f64, f64, f64) {
    let payload = vec![b'x'; case.payload_len];
    let frame = PublishFrame {
        dup: false,
        qos: case.qos,
        retain: false,
        packet_id: if case.qos == Qos::AtMostOnce { None } else { PacketId::new(7) },
        topic: TOPIC,
        alias: None,
        expiry: case.expiry,
        subscription_ids: &[],
        properties: case.properties,
        payload_len: payload.len(),
    };
    let mut out = Vec::new();
    let encode = best(|| {
        out.clear();
        for _ in 0..PACKETS {
            black_box(&frame).encode_head(case.version, &mut out);
            out.extend_from_slice(black_box(&payload));
        }
    });
    let decode = best(|| {
        for_each_publish(case.version, &out, |packet| {
            black_box(packet);
        });
    });
    let mut scratch = Vec::new();
    let forward = best(|| {
        for_each_publish(case.version, &out, |packet| {
            if let Packet::Publish(publish) = packet {
                scratch.clear();
                publish.properties.forwarded(|run| scratch.extend_from_slice(run));
                black_box(&scratch);
            }
        });
    });
    (decode, forward, encode)
}

fn for_each_publish(version: Version, mut input: &[u8], mut see: impl FnMut(&Packet<'_>)) {
    let mut decoder = Decoder::client(version, 1 << 20);
    let mut seen = 0;
    while let Ok(Some((packet, len))) = decoder.decode(black_box(input)) {
        see(&packet);
        input = &input[len..];
        seen += 1;
    }
    assert_eq!(seen, PACKETS, "not every packet was decoded");
}

/// Nanoseconds for one packet in the best round.
fn best(mut round: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64 / PACKETS as f64
}
