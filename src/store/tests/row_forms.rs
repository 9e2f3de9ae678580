//! Rows: what is read is what was written, and what is damaged is an error.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::codec::{PacketId, RetainHandling, SubscribeOptions};
use crate::record::{Exchange, ExchangeState, SavedTries, WillRecord};
use crate::store::bytes::{RowReader, put_varint};
use crate::store::rows;

fn row(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes);
    bytes
}

fn message_and_legs(bytes: &[u8]) -> Result<(Message, Vec<Leg>), StoreError> {
    let (mut legs, mut same) = (Vec::new(), Vec::new());
    let message = rows::message(bytes, |leg| legs.push(leg))?;
    rows::message_legs(bytes, |leg| same.push(leg))?;
    assert_eq!(legs, same);
    Ok((message.message, legs))
}

/// No beginning of a row, and no row with a byte too many, is read as a row.
fn assert_whole<T: std::fmt::Debug>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<T, StoreError>) {
    for len in 0..bytes.len() {
        let cut = read(&bytes[..len]);
        assert!(matches!(cut, Err(StoreError::Damaged(_))), "{len} of {} bytes: {cut:?}", bytes.len());
    }
    let longer = read(&[bytes, &[0]].concat());
    assert!(longer.is_err(), "{longer:?}");
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

prop_compose! {
    fn any_message()(
        qos in qos(), retain: bool, published_at: u64, expires_at: u64,
        topic in "[a-zö/]{1,300}", publisher in "[a-zö]{0,200}",
        properties in prop::collection::vec(any::<u8>(), 0..200),
        payload in prop::collection::vec(any::<u8>(), 0..500),
    ) -> Message {
        let parts = MessageParts {
            qos, retain, topic: &topic, properties: &properties, payload: &payload, publisher: &publisher,
            published_at: UnixMillis(published_at), expires_at: UnixMillis(expires_at),
        };
        Message::new(&parts, &mut Vec::new())
    }
}

prop_compose! {
    fn any_leg()(
        recipient: u64, qos in qos(), retain: bool,
        ids in prop::collection::vec(any::<u32>(), 0..4),
    ) -> Leg {
        Leg { recipient: RecipientNo(recipient), qos, retain, subscription_ids: ids.into() }
    }
}

prop_compose! {
    fn any_session()(
        epoch: u64, client_id in "[a-zö]{0,200}", user_name in prop::option::of("[a-zö]{0,20}"), expiry: u32,
        at: u64, closed_at in prop::option::of(0..u64::MAX), torn: bool, delay: u32,
        message_expiry: Option<u32>, message in prop::option::of(any_message()),
    ) -> SessionRow {
        let will = message.map(|message| WillRecord { message, delay, message_expiry });
        let opened = SessionOpened {
            recipient: RecipientNo(3), epoch: Epoch(epoch), client_id: client_id.into(),
            user_name: user_name.map(Into::into), expiry, will, at: UnixMillis(at),
        };
        SessionRow { opened, closed_at: closed_at.map(UnixMillis), torn }
    }
}

prop_compose! {
    fn any_progress()(
        cursor in 0..u64::MAX / 2, steps in prop::collection::vec((1..1000u64, 0..1000u64), 0..20),
        inbound in prop::collection::btree_set(1..=u16::MAX, 0..20), next_packet_id: u16, doubtful_before: u64,
        exchanges in prop::collection::vec((1..=u16::MAX, any::<u64>(), any::<u64>(), 0..3usize), 0..20),
    ) -> Progress {
        let (mut settled, mut last) = (BTreeMap::new(), cursor);
        for (gap, len) in steps {
            settled.insert(last + gap + 1, last + gap + 1 + len);
            last += gap + 1 + len;
        }
        let states =
            [ExchangeState::AwaitingPuback, ExchangeState::AwaitingPubrec, ExchangeState::AwaitingPubcomp];
        let exchange = |(id, lsn, owner, state): (u16, u64, u64, usize)| {
            let packet_id = PacketId::new(id).unwrap();
            let owner = RecipientNo(owner);
            (id, Exchange { packet_id, lsn: Lsn(lsn), owner, state: states[state] })
        };
        let exchanges = exchanges.into_iter().map(exchange).collect();
        Progress { cursor: Lsn(cursor), settled, inbound, exchanges, next_packet_id, doubtful_before: Lsn(doubtful_before) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_comes_back(message in any_message(), mut legs in prop::collection::vec(any_leg(), 0..40)) {
        legs.sort_by_key(|leg| leg.recipient);
        legs.dedup_by_key(|leg| leg.recipient);
        let bytes = row(|out| rows::put_message(out, &message, &legs, None));
        let (read, read_legs) = message_and_legs(&bytes).unwrap();
        prop_assert_eq!(read, message.clone());
        prop_assert_eq!(read_legs, legs);
        // The payload is what the row has left: the database tells where a row ends.
        for len in 0..bytes.len() - message.payload().len() {
            prop_assert!(message_and_legs(&bytes[..len]).is_err(), "{} of {}", len, bytes.len());
        }
    }

    #[test]
    fn a_session_comes_back(session in any_session()) {
        let bytes = row(|out| rows::put_session(out, &session));
        prop_assert_eq!(&rows::session(RecipientNo(3), &bytes).unwrap(), &session);
        if session.opened.will.is_none() {
            assert_whole(&bytes, |bytes| rows::session(RecipientNo(3), bytes));
        }
    }

    #[test]
    fn progress_comes_back(progress in any_progress()) {
        let bytes = row(|out| rows::put_progress(out, &progress));
        prop_assert_eq!(&rows::progress(&bytes).unwrap(), &progress);
        assert_whole(&bytes, rows::progress);
    }

    #[test]
    fn a_subscription_comes_back(
        qos in qos(), no_local: bool, retain_as_published: bool, handling in 0..3usize, id: u32,
    ) {
        let handlings = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let options =
            SubscribeOptions { qos, no_local, retain_as_published, retain_handling: handlings[handling] };
        let id = Some(id).filter(|id| *id > 0);
        let bytes = row(|out| rows::put_subscription(out, options, id));
        let read = rows::subscription("a/#", &bytes).unwrap();
        prop_assert_eq!((read.options, read.id, &*read.filter), (options, id, "a/#"));
        assert_whole(&bytes, |bytes| rows::subscription("a/#", bytes));
    }

    #[test]
    fn tries_come_back(count: u32, answers: u32, first_at: u64, last_at: u64) {
        let (first_at, last_at) = (UnixMillis(first_at), UnixMillis(last_at));
        let tries = SavedTries { count, answers, first_at, last_at };
        let bytes = row(|out| rows::put_tries(out, &tries));
        prop_assert_eq!(rows::tries(&bytes).unwrap(), tries);
        assert_whole(&bytes, rows::tries);
    }

    #[test]
    fn bytes_from_nowhere_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = message_and_legs(&bytes);
        let _ = rows::session(RecipientNo(1), &bytes);
        let _ = rows::progress(&bytes);
        let _ = rows::subscription("a", &bytes);
        let _ = rows::tries(&bytes);
    }

    #[test]
    fn a_varint_comes_back(value: u64, shift in 0..64u32) {
        let value = value >> shift;
        let bytes = row(|out| put_varint(out, value));
        prop_assert_eq!(RowReader::new("test", &bytes).varint().unwrap(), value);
        assert_whole(&bytes, |bytes| {
            let mut row = RowReader::new("test", bytes);
            row.varint().and_then(|value| row.finish().map(|()| value))
        });
    }

    /// In whatever order legs are settled: settled is what was, and there are no more ranges than open legs.
    #[test]
    fn ranges_agree_with_a_set(order in Just((1..40u64).collect::<Vec<_>>()).prop_shuffle()) {
        let backlog = Backlog::default();
        order.iter().collect::<BTreeSet<_>>().into_iter().for_each(|n| backlog.add(Lsn(n * 3), 1));
        let mut progress = Progress::default();
        for (done, n) in order.iter().enumerate() {
            backlog.remove_recent(Lsn(n * 3));
            progress.settle(Lsn(n * 3), backlog.around(Lsn(n * 3)));
            for (index, other) in order.iter().enumerate() {
                prop_assert_eq!(progress.has_settled(Lsn(other * 3)), index <= done);
            }
            prop_assert!(progress.settled.len() as u64 <= backlog.count());
            prop_assert!(!progress.has_settled(Lsn(1_000)), "a number to come");
        }
    }
}

#[test]
fn a_leg_has_as_many_subscription_ids_as_matched() {
    for count in [1, 255, 256, 257, 1000] {
        let mut leg = leg(RecipientNo(9));
        leg.subscription_ids = (1..=count).collect();
        let bytes = row(|out| rows::put_message(out, &message("a", b"x"), std::slice::from_ref(&leg), None));
        assert_eq!(message_and_legs(&bytes).unwrap().1, [leg]);
    }
}

#[test]
fn a_leg_among_many_costs_two_bytes() {
    let legs: Vec<_> = (1_000_000..1_010_000).map(|n| leg(RecipientNo(n))).collect();
    let of = |legs: &[Leg]| row(|out| rows::put_message(out, &message("a", b"x"), legs, None)).len();
    assert!(of(&legs) - of(&legs[..1]) <= 2 * legs.len());
}
