//! A slot between those who publish and the connection that delivers, with every interleaving of a few steps
//! played by loom. How, is said in the store's `tests/interleavings.rs`.

#![allow(dead_code, reason = "no model needs all of what the broker needs")]
#![allow(clippy::duplicate_mod, reason = "the same code, made of what loom can play")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use loom::thread;

use super::{Lsn, ReasonCode, retained_message};
use crate::broker::{Group, Memory, MemoryShare, turn};
use crate::codec::Qos;
use crate::record::{RecipientNo, SubscriptionIds, UnixMillis};
use crate::session::{Claim, Delivery};
use crate::store::Backlog;
use crate::store::tests::interleavings::bell::Bell;
use crate::store::tests::interleavings::sync::{AtomicU64, Ordering};
use crate::store::tests::interleavings::{block_on, play, sync};
use slot::{DurableSlot, Link, Mode, Slot, Touched};

#[path = "../slot.rs"]
mod slot;

const OWN: RecipientNo = RecipientNo(7);

/// The number of a message that no store has.
const PASSING: Lsn = Lsn::ZERO;

fn delivery(lsn: Lsn) -> Delivery {
    Delivery {
        message: retained_message(UnixMillis::NEVER),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: SubscriptionIds::new(),
        not_before: Lsn::ZERO,
        claim: (lsn != PASSING).then_some(Claim { lsn, owner: OWN, entry: None }),
    }
}

/// A slot with a connection.
fn slot(mode: Mode, is_durable: bool) -> (Arc<Slot>, Arc<Link>) {
    let durable = is_durable.then(|| DurableSlot { recipient: OWN, backlog: Arc::new(Backlog::default()) });
    let slot = Arc::new(Slot::new("c".into(), 1, durable, 0, &Memory::new(1 << 20)));
    let link = Arc::new(Link::default());
    let mut inner = slot.lock();
    inner.mode = mode;
    inner.link = Some(Arc::clone(&link));
    drop(inner);
    (slot, link)
}

fn push(slot: &Slot, lsn: Lsn, bytes_max: usize) {
    let mut touched = Touched::default();
    slot.push(delivery(lsn), bytes_max, &mut touched);
    touched.ring();
}

/// Two publishers and a connection that sleeps whenever it has nothing to do: it gets both messages.
#[test]
fn nobody_sleeps_over_a_message() {
    play(|| {
        let (slot, link) = slot(Mode::Live, false);
        for _ in 0..2 {
            let slot = Arc::clone(&slot);
            thread::spawn(move || push(&slot, PASSING, 1 << 20));
        }
        let (mut frames, mut seen) = (VecDeque::new(), 0);
        block_on(poll_fn(|cx| {
            loop {
                let rung = link.bell.poll_heard(cx.waker());
                slot.take_frames(&mut frames, 0);
                let taken = frames.drain(..).count();
                seen += taken;
                if seen == 2 {
                    return Poll::Ready(());
                }
                if !rung && taken == 0 && slot.park() {
                    return Poll::Pending;
                }
            }
        }));
    });
}

/// What it is told it sees when it is rung for, whoever else rings.
#[test]
fn nobody_sleeps_over_an_eviction() {
    play(|| {
        let (slot, link) = slot(Mode::Live, false);
        let publisher = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || push(&slot, PASSING, 1 << 20))
        };
        let evicting = {
            let link = Arc::clone(&link);
            thread::spawn(move || link.evict(ReasonCode::SessionTakenOver))
        };
        block_on(poll_fn(|cx| {
            loop {
                let rung = link.bell.poll_heard(cx.waker());
                if link.eviction().is_some() {
                    return Poll::Ready(());
                }
                slot.take_frames(&mut VecDeque::new(), 0);
                if !rung && slot.park() {
                    return Poll::Pending;
                }
            }
        }));
        publisher.join().unwrap();
        evicting.join().unwrap();
    });
}

/// [no_overtaking_on_mode_switch] A publisher pushes three messages while the disk comes to them and the
/// connection reads its backlog, goes live, and is sent back by an outbox that has room for one.
#[test]
fn modes_switch_without_a_gap_or_a_repeat() {
    const LAST: u64 = 3;
    play(|| {
        let (slot, link) = slot(Mode::Backlog, true);
        let durable = Arc::new(AtomicU64::new(0));
        let room = delivery(Lsn(1)).size();
        let publisher = {
            let (slot, durable) = (Arc::clone(&slot), Arc::clone(&durable));
            thread::spawn(move || {
                for lsn in 1..=LAST {
                    // What was submitted may be on disk before it is pushed, or after.
                    if lsn % 2 == 0 {
                        durable.store(lsn, Ordering::Release);
                    }
                    push(&slot, Lsn(lsn), room);
                }
                durable.store(LAST, Ordering::Release);
                link.bell.ring();
            })
        };
        let link = slot.link().unwrap();
        let (mut frames, mut seen) = (VecDeque::new(), Vec::new());
        block_on(poll_fn(|cx| {
            loop {
                let rung = link.bell.poll_heard(cx.waker());
                let watermark = durable.load(Ordering::Acquire);
                let mode = slot.take_frames(&mut frames, 0);
                seen.extend(frames.drain(..).filter_map(|frame| frame.claim).map(|claim| claim.lsn.0));
                if mode == Mode::Backlog {
                    let read = seen.last().copied().unwrap_or_default();
                    seen.extend(read + 1..=watermark);
                    if slot.go_live(Lsn(watermark)).is_ok() {
                        continue;
                    }
                }
                if seen.len() as u64 >= LAST {
                    return Poll::Ready(());
                }
                if !rung && slot.park() {
                    return Poll::Pending;
                }
            }
        }));
        publisher.join().unwrap();
        assert_eq!(seen, [1, 2, 3]);
    });
}
