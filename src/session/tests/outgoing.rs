//! The buffer for the client, against a flat one.

use proptest::prelude::*;

use super::*;
use crate::codec::PublishFrame;

/// Appends a PUBLISH to both.
fn append(out: &mut Outgoing, flat: &mut Vec<u8>, len: usize, fill: u8) {
    let message = message("t", &vec![fill; len], UnixMillis::NEVER);
    let frame = PublishFrame {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        packet_id: None,
        topic: b"t",
        alias: None,
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload_len: len,
    };
    out.publish(Version::V5, &frame, &message);
    frame.encode_head(Version::V5, flat);
    flat.extend_from_slice(message.payload());
}

/// Takes up to `max` bytes of what the buffer offers, as a socket does.
fn write(out: &mut Outgoing, max: usize, written: &mut Vec<u8>) {
    let before = written.len();
    out.with_slices(|slices| {
        assert!(slices.len() <= 64);
        for slice in slices {
            let room = max - (written.len() - before);
            written.extend_from_slice(&slice[..slice.len().min(room)]);
        }
    });
    out.advance(written.len() - before);
}

#[derive(Clone, Debug)]
enum Op {
    Publish(usize),
    Reply(usize),
    Write(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let payload = prop_oneof![0usize..700, Just(512usize), Just(513usize), 30_000usize..90_000];
    prop_oneof![
        payload.prop_map(Op::Publish),
        (1usize..40).prop_map(Op::Reply),
        prop_oneof![0usize..50, 0usize..150_000].prop_map(Op::Write),
    ]
}

proptest! {
    #[test]
    fn partial_writes_lose_and_repeat_nothing(ops in prop::collection::vec(op(), 1..120)) {
        let (mut out, mut flat, mut written) = (Outgoing::default(), Vec::new(), Vec::new());
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Publish(len) => append(&mut out, &mut flat, len, n as u8),
                Op::Reply(len) => {
                    out.bytes.extend(std::iter::repeat_n(n as u8, len));
                    flat.extend(std::iter::repeat_n(n as u8, len));
                }
                Op::Write(max) => write(&mut out, max, &mut written),
            }
            prop_assert_eq!(out.len(), flat.len() - written.len());
            prop_assert_eq!(out.is_empty(), flat.len() == written.len());
        }
        while !out.is_empty() {
            write(&mut out, 1_000_000, &mut written);
        }
        prop_assert!(written == flat, "what was written is what was appended");
        prop_assert!(out.bytes.is_empty());
    }
}

#[test]
fn large_payloads_are_not_copied() {
    let (mut out, mut flat) = (Outgoing::default(), Vec::new());
    append(&mut out, &mut flat, 100_000, 1);
    assert!(out.bytes.len() < 20);
    assert_eq!(out.len(), flat.len());
}

#[test]
fn a_client_that_is_always_behind_does_not_make_the_buffer_grow() {
    let (mut out, mut flat, mut written) = (Outgoing::default(), Vec::new(), Vec::new());
    for n in 0..2000u32 {
        append(&mut out, &mut flat, if n % 2 == 0 { 400 } else { 600 }, n as u8);
        append(&mut out, &mut flat, 500, n as u8);
        let all_but_one = out.len() - 1;
        while out.len() > 1 {
            let max = all_but_one.min(out.len() - 1);
            write(&mut out, max, &mut written);
        }
        assert!(out.bytes.len() < 256 * 1024, "{} bytes are kept for one", out.bytes.len());
    }
    write(&mut out, 1, &mut written);
    assert!(written == flat);
}

#[test]
fn more_than_was_there_cannot_be_written() {
    let (mut out, mut flat) = (Outgoing::default(), Vec::new());
    append(&mut out, &mut flat, 600, 1);
    out.advance(1_000_000);
    assert_eq!(out.len(), 0);
}
