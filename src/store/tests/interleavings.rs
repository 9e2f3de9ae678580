//! What threads share in the store, with every interleaving of a few of them played by loom.
//!
//! The files of the store are compiled here a second time, with the `sync` below in place of the store's: what is
//! checked is the very code. A wake-up that is lost shows as a deadlock.

#![allow(dead_code, reason = "no model needs all of what the store needs")]
#![allow(clippy::duplicate_mod, reason = "the same code, made of what loom can play")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::super::SubmitError;
use super::{Lsn, RecipientNo, publication};
use bell::Bell;
use queue::{Entry, Queue, Strike};
use sync::{AtomicBool, Condvar, Mutex, Ordering};
use watermark::Watermark;

#[path = "../bell.rs"]
pub(crate) mod bell;
#[path = "../queue.rs"]
mod queue;
#[path = "../watermark.rs"]
pub(crate) mod watermark;

/// The store's `sync`, made by loom and with the methods that the store knows.
pub(crate) mod sync {
    use std::ops::{Deref, DerefMut};
    use std::task::Waker;
    use std::time::{Duration, Instant};

    use loom::sync::WaitTimeoutResult;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// `None` only within [`Condvar::wait`].
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.0 = guard.0.take().map(|inner| self.0.wait(inner).unwrap());
        }

        /// Loom knows no time: it waits until it is told.
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
            let (inner, result) = self.0.wait_timeout(guard.0.take().unwrap(), Duration::ZERO).unwrap();
            guard.0 = Some(inner);
            result
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    impl AtomicWaker {
        pub(crate) fn register(&self, waker: &Waker) {
            *self.0.lock() = Some(waker.clone());
        }

        pub(crate) fn wake(&self) {
            let waker = self.0.lock().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// Plays every interleaving in which threads give way to each other up to three times where they need not.
pub(crate) fn play(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Whoever sleeps in [`block_on`], and whether it was woken.
struct Sleeper(Mutex<bool>, Condvar);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.0.lock() = true;
        self.1.notify_one();
    }
}

/// Runs a future to its end on this thread, which sleeps when there is nothing to do.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let sleeper = Arc::new(Sleeper(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(Arc::clone(&sleeper));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = sleeper.0.lock();
        while !std::mem::take(&mut *woken) {
            sleeper.1.wait(&mut woken);
        }
    }
}

/// A record in a queue of its own, owed to `recipients`.
fn submitted(recipients: &[RecipientNo]) -> (Arc<Queue>, Arc<Entry>) {
    let queue = Arc::new(Queue::new(Lsn(1), Lsn(100)));
    let entry = queue.submit(publication(b"x", recipients)).unwrap();
    (queue, entry)
}

/// What rings may come while another one is heard, and what was done before a ring is seen by who hears it.
#[test]
fn a_bell_loses_no_ring() {
    play(|| {
        let (bell, done) =
            (Arc::new(Bell::default()), Arc::new([AtomicBool::new(false), AtomicBool::new(false)]));
        for n in 0..2 {
            let (bell, done) = (Arc::clone(&bell), Arc::clone(&done));
            thread::spawn(move || {
                // By the bell alone it is known to be seen.
                done[n].store(true, Ordering::Relaxed);
                bell.ring();
            });
        }
        while !done.iter().all(|done| done.load(Ordering::Relaxed)) {
            block_on(bell.heard());
        }
    });
}

/// [watermark_order] Whoever waits for a number is rung for, when it is reached or when it never will be.
#[test]
fn who_waits_for_the_watermark_is_rung_for() {
    for fails in [false, true] {
        play(move || {
            let watermark = Arc::new(Watermark::default());
            let writer = {
                let watermark = Arc::clone(&watermark);
                thread::spawn(move || {
                    watermark.advance(Lsn(1));
                    if fails { watermark.give_up() } else { watermark.advance(Lsn(2)) }
                })
            };
            let bell = Arc::new(Bell::default());
            for lsn in [Lsn(1), Lsn(2)] {
                while watermark.get() < lsn && !watermark.has_given_up() {
                    watermark.ring_at(lsn, &bell);
                    block_on(bell.heard());
                }
            }
            assert!(fails || watermark.get() == Lsn(2));
            writer.join().unwrap();
        });
    }
}

/// [watermark_order] A number and its place are one: what is taken has every number up to its last.
#[test]
fn numbers_stand_in_the_queue_in_order() {
    play(|| {
        let queue = Arc::new(Queue::new(Lsn(1), Lsn(100)));
        let submitters = [(); 2].map(|()| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.submit(publication(b"x", &[])).unwrap().lsn)
        });
        let mut taken = Vec::new();
        while taken.len() < 2 {
            // A writer that sleeps is woken.
            let batch = queue.take(usize::MAX, Lsn(u64::MAX), false).unwrap();
            taken.extend(batch.entries.iter().map(|entry| entry.lsn));
            assert_eq!(taken.last(), Some(&batch.last));
            assert!((1..).map(Lsn).zip(&taken).all(|(lsn, taken)| lsn == *taken), "{taken:?}");
        }
        let mut given = submitters.map(|submitter| submitter.join().unwrap());
        given.sort_unstable();
        assert_eq!(given, [Lsn(1), Lsn(2)]);
    });
}

/// [leg_leaves_while_taken] A leg is struck out or taken for writing, and never both or neither.
#[test]
fn a_leg_is_struck_or_taken() {
    play(|| {
        let (one, other) = (RecipientNo(1), RecipientNo(2));
        let (queue, entry) = submitted(&[one, other]);
        let writer = thread::spawn(move || {
            let batch = queue.take(usize::MAX, Lsn(u64::MAX), false).unwrap();
            batch.entries[0].take()
        });
        let is_struck = entry.strike(one).is_struck();
        let taken: Vec<_> = writer.join().unwrap().iter().map(|leg| leg.recipient).collect();
        assert_eq!(taken, if is_struck { vec![other] } else { vec![one, other] });
        assert!(!entry.strike(other).is_struck(), "too late");
    });
}

/// The publisher sleeps until everyone who is to get its message has it, whoever is last and whenever.
#[test]
fn the_last_leg_rings_for_the_publisher() {
    play(|| {
        let recipients = [RecipientNo(1), RecipientNo(2)];
        let (_queue, entry) = submitted(&recipients);
        for recipient in recipients {
            let entry = Arc::clone(&entry);
            thread::spawn(move || match entry.strike(recipient) {
                Strike::Struck(publisher) => publisher.into_iter().for_each(|bell| bell.ring()),
                Strike::TooLate => unreachable!("nobody has taken it"),
            });
        }
        let bell = Arc::new(Bell::default());
        while !entry.is_complete() {
            entry.ring_when_complete(&bell);
            block_on(bell.heard());
        }
    });
}
