//! Stored forms: what is read is what was written, also by the first version, and what is damaged is an error.

use proptest::prelude::*;

use super::*;

/// Content type, response topic, correlation data, and one user property twice.
const PROPERTIES: &[u8] = b"\x03\0\x01x\x08\0\x01r\x09\0\x01\xff\x26\0\x01k\0\x011\x26\0\x01k\0\x012";

/// A letter with every field set, for the tests of this room.
pub(in crate::record) fn rejected_letter() -> DeadLetter {
    let at = |millis: u64| UnixMillis(1_700_000_000_000 + millis);
    let timed_out = AttemptOutcome::Failed("no answer".into());
    let refused = AttemptOutcome::Answered { status: 422, excerpt: "no such order".into() };
    DeadLetter {
        message_no: Lsn(8),
        reason: DeadLetterReason::Rejected,
        detail: Some("why".into()),
        addressee: Addressee::Route { route: "orders".into(), target: "erp".into() },
        message: message("a/ö", PROPERTIES, b"payload", "boat"),
        attempts: Some(Attempts {
            count: 2,
            first_at: at(1000),
            last_at: at(2500),
            list: vec![
                Attempt { at: at(1000), latency_ms: Some(900), outcome: timed_out },
                Attempt { at: at(2000), latency_ms: None, outcome: refused },
            ],
        }),
        created_at: at(2600),
        imported_from: Some(GlobalNo { store_id: 0xcd, number: Lsn(4) }),
    }
}

fn message(topic: &str, properties: &[u8], payload: &[u8], publisher: &str) -> Message {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: true,
        published_at: UnixMillis(1_700_000_000_000),
        expires_at: UnixMillis::NEVER,
        topic,
        properties,
        payload,
        publisher,
    };
    Message::new(&parts, &mut Vec::new())
}

fn encoded(letter: &DeadLetter) -> Vec<u8> {
    let mut bytes = Vec::new();
    letter.encode(&mut bytes);
    bytes
}

#[test]
fn the_stored_form_does_not_change() {
    let letter = DeadLetter {
        addressee: Addressee::Session { client_id: "c".into() },
        message: message("t", b"p", b"x", "b"),
        ..rejected_letter()
    };
    let number = |number: u64| number.to_le_bytes();
    let expected = [
        &[2, 4][..],
        &number(8),
        &number(1_700_000_002_600),
        b"\x01\x03\0\0\0why\x01",
        &number(0xcd),
        &number(4),
        b"\x01\x01\0\0\0c",
        b"\x01\x02\0\0\0",
        &number(1_700_000_001_000),
        &number(1_700_000_002_500),
        b"\x02\0\0\0",
        &number(1_700_000_001_000),
        b"\x84\x03\0\0\x02\x09\0\0\0no answer",
        &number(1_700_000_002_000),
        b"\xff\xff\xff\xff\x01\xa6\x01\x0d\0\0\0no such order",
        b"\x01\x01",
        &number(1_700_000_000_000),
        &[0xff; 8],
        b"\x01\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0tpbx",
    ];
    assert_eq!(encoded(&letter), expected.concat());
}

/// As version 1 wrote it.
#[test]
fn a_letter_of_version_1_is_read() {
    let number = |number: u64| number.to_le_bytes();
    let head = [&[1, 4][..], &number(8), &number(1_700_000_002_600)].concat();
    let tried = [&b"\x01\xa6\x01\x02\0\0\0no\x03\0\0\0"[..], &number(5), &number(7)].concat();
    let message_1 = [
        b"\x01\x01",
        &number(1_700_000_000_000)[..],
        &[0xff; 8],
        b"\x01\0\0\0t\x01\0\0\0p\x01\0\0\0b\x01\0\0\0x",
    ]
    .concat();
    let read = |attempts: &[u8]| {
        let bytes = [&head[..], b"\x01\x01\0\0\0c", attempts, &message_1].concat();
        DeadLetter::decode(&bytes).unwrap()
    };
    let never_tried = DeadLetter {
        addressee: Addressee::Session { client_id: "c".into() },
        message: message("t", b"p", b"x", "b"),
        attempts: None,
        detail: None,
        imported_from: None,
        ..rejected_letter()
    };
    assert_eq!(read(&[0]), never_tried);
    let outcome = AttemptOutcome::Answered { status: 422, excerpt: "no".into() };
    let last = Attempt { at: UnixMillis(7), latency_ms: None, outcome };
    let attempts = Attempts { count: 3, first_at: UnixMillis(5), last_at: UnixMillis(7), list: vec![last] };
    assert_eq!(read(&tried).attempts, Some(attempts));
}

#[test]
fn every_shape_of_a_letter_comes_back() {
    let whole = rejected_letter();
    let attempts = whole.attempts.clone().unwrap();
    for attempts in [None, Some(Attempts { list: Vec::new(), ..attempts.clone() }), Some(attempts)] {
        for addressee in [whole.addressee.clone(), Addressee::Nobody] {
            for &reason in DeadLetterReason::ALL {
                let (attempts, addressee) = (attempts.clone(), addressee.clone());
                let letter = DeadLetter { reason, attempts, addressee, ..whole.clone() };
                assert_eq!(DeadLetter::decode(&encoded(&letter)), Ok(letter));
            }
        }
    }
}

#[test]
fn a_letter_that_is_cut_short_is_an_error() {
    let bytes = encoded(&rejected_letter());
    for len in 0..bytes.len() {
        let cut = DeadLetter::decode(&bytes[..len]);
        assert!(matches!(cut, Err(DeadLetterError::Truncated(_))), "at {len}: {cut:?}");
    }
}

#[test]
fn bytes_that_mean_nothing_are_errors() {
    let whole = DeadLetter { detail: None, imported_from: None, ..rejected_letter() };
    let with = |at: usize, byte: u8| {
        let mut bytes = encoded(&whole);
        bytes[at] = byte;
        DeadLetter::decode(&bytes)
    };
    assert_eq!(with(0, 3), Err(DeadLetterError::Version(3)));
    assert_eq!(with(1, 0), Err(DeadLetterError::Unknown("reason", 0)));
    assert_eq!(with(18, 9), Err(DeadLetterError::Unknown("detail", 9)));
    assert_eq!(with(20, 9), Err(DeadLetterError::Unknown("addressee", 9)));
    assert_eq!(with(25, 0xff), Err(DeadLetterError::NotUtf8("route")));
    let topic_len = encoded(&whole).len() - whole.message.bytes().len() - 16;
    assert_eq!(with(topic_len, 0xff), Err(DeadLetterError::Lengths));
    let mut longer = encoded(&rejected_letter());
    longer.push(0);
    assert_eq!(DeadLetter::decode(&longer), Err(DeadLetterError::Trailing(1)));
}

proptest! {
    #[test]
    fn any_message_comes_back(
        topic in ".{0,40}", publisher in ".{0,40}",
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        properties in proptest::collection::vec(any::<u8>(), 0..40),
        message_no: u64, created_at: u64,
    ) {
        let message = message(&topic, &properties, &payload, &publisher);
        let created_at = UnixMillis(created_at);
        let letter = DeadLetter { message_no: Lsn(message_no), message, created_at, ..rejected_letter() };
        prop_assert_eq!(DeadLetter::decode(&encoded(&letter)), Ok(letter));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 1..=2u8) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = DeadLetter::decode(&bytes);
    }
}
