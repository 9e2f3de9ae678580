//! Back-pressure between the two sides of a pair.
//!
//! A publisher counts the deliveries it has caused, its subscribers count those that came; the publisher
//! stops while too many are under way, so that a broker with finite queues has no reason to drop any.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use atomic_waker::AtomicWaker;

/// The deliveries of one publisher that are under way.
#[derive(Debug)]
pub struct Flow {
    /// Deliveries that one message causes.
    fanout: u64,
    limit: u64,
    received: AtomicU64,
    /// The count of deliveries at which the publisher wants to be woken.
    wake_at: AtomicU64,
    publisher: AtomicWaker,
}

impl Flow {
    /// At most `limit` deliveries under way (0: no limit), of which each message causes `fanout`.
    pub fn new(limit: u64, fanout: u64) -> Self {
        let fanout = fanout.max(1);
        // A message whose deliveries alone exceed the limit must still be possible.
        let limit = if limit == 0 { u64::MAX } else { limit.max(fanout) };
        let (received, wake_at) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { fanout, limit, received, wake_at, publisher: AtomicWaker::new() }
    }

    /// How many more messages a publisher that has sent `sent` may send. With none, the publisher is woken
    /// once there is room again.
    pub fn room(&self, sent: u64, context: &Context<'_>) -> u64 {
        let room = self.room_now(sent);
        if room > 0 {
            return room;
        }
        self.publisher.register(context.waker());
        let caused = sent.saturating_mul(self.fanout);
        let needed = caused.saturating_add(self.fanout).saturating_sub(self.limit);
        // A quarter of the limit at a time: waking for every single delivery would cost more than it is worth.
        let wake_at = needed.saturating_add(self.limit / 4).min(caused);
        // Stored before the second look, as `delivered` counts before it looks: one of the two sees the other.
        self.wake_at.store(wake_at, Ordering::SeqCst);
        self.room_now(sent)
    }

    /// Notes `count` deliveries, and wakes the publisher if it waits for that many.
    pub fn delivered(&self, count: u64) {
        let received = self.received.fetch_add(count, Ordering::SeqCst) + count;
        if received >= self.wake_at.load(Ordering::SeqCst) {
            self.wake_at.store(u64::MAX, Ordering::SeqCst);
            self.publisher.wake();
        }
    }

    fn room_now(&self, sent: u64) -> u64 {
        let caused = sent.saturating_mul(self.fanout);
        let under_way = caused.saturating_sub(self.received.load(Ordering::SeqCst));
        self.limit.saturating_sub(under_way) / self.fanout
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn room_shrinks_with_what_is_under_way_and_deliveries_give_it_back() {
        let context = &Context::from_waker(Waker::noop());
        let flow = Flow::new(100, 10);
        assert_eq!(flow.room(0, context), 10);
        assert_eq!(flow.room(9, context), 1);
        assert_eq!(flow.room(10, context), 0);
        flow.delivered(15);
        assert_eq!(flow.room(10, context), 1);
    }

    #[test]
    fn a_waiting_publisher_is_woken_before_everything_has_come() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let flow = Flow::new(100, 1);
        assert_eq!(flow.room(100, &Context::from_waker(&waker)), 0);
        for _ in 0..25 {
            flow.delivered(1);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "not for every message");
        flow.delivered(1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(flow.room(100, &Context::from_waker(&waker)), 26);
    }

    #[test]
    fn no_limit_and_a_limit_below_one_message_both_let_messages_go() {
        let context = &Context::from_waker(Waker::noop());
        assert!(Flow::new(0, 100).room(1_000_000, context) > 0);
        assert_eq!(Flow::new(10, 100).room(0, context), 1);
        assert_eq!(Flow::new(10, 100).room(1, context), 0);
    }

    #[test]
    fn whoever_waits_for_the_last_delivery_is_woken_by_it() {
        for (limit, fanout) in [(100, 99), (1, 1), (3, 2), (130, 100)] {
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let context = &Context::from_waker(&waker);
            let flow = Flow::new(limit, fanout);
            let sent = flow.room(0, context);
            assert_eq!(flow.room(sent, context), 0);
            for _ in 0..sent * fanout {
                flow.delivered(1);
            }
            assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "limit {limit}, fanout {fanout}");
            assert!(flow.room(sent, context) > 0);
        }
    }
}
