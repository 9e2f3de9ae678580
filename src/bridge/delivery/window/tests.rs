//! The window against a backlog of plain numbers, whose lanes are their topics.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::codec::Qos;
use crate::config::BatchConfig;
use crate::record::{Attempt, AttemptOutcome, Leg, Message, MessageParts, RecipientNo, SubscriptionIds};

const NOW: UnixMillis = UnixMillis(1000);
const MAX_AGE: u64 = 100_000;

fn stored(lsn: u64, published_at: UnixMillis, topic: &str) -> Stored {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at,
        expires_at: UnixMillis::NEVER,
        topic,
        properties: b"",
        payload: b"",
        publisher: "p",
    };
    let leg = Leg {
        recipient: RecipientNo(1),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_ids: SubscriptionIds::new(),
    };
    Stored { lsn: Lsn(lsn), message: Message::new(&parts, &mut Vec::new()), leg, origin: None, bytes: 0 }
}

fn history(answer: &str) -> Box<History> {
    let outcome = AttemptOutcome::Answered { status: 500, excerpt: answer.into() };
    let mut attempts = Attempts::begin(NOW);
    attempts.add(Attempt { at: NOW, latency_ms: Some(1), outcome }, NOW);
    Box::new(History { tries: Tries::begin(NOW), attempts, blocks_since: None, batch_max: usize::MAX })
}

/// A window whose backlog is every number up to `last`. The topic of a number is its rest by `topics`.
struct Fixture {
    window: Window,
    order: Order,
    last: u64,
    topics: u64,
}

impl Fixture {
    fn new(order: Order, concurrency: u32, last: u64) -> Self {
        Self::with_batch(order, concurrency, last, None)
    }

    fn with_batch(order: Order, concurrency: u32, last: u64, batch: Option<BatchConfig>) -> Self {
        let mut target = TargetConfig::new(http::Uri::from_static("http://127.0.0.1/"));
        target.concurrency = concurrency;
        target.retry.max_age = Duration::from_millis(MAX_AGE);
        let route = RouteConfig { order: order.clone(), batch, ..RouteConfig::new("r", "#", "t") };
        Self { window: Window::new(&route, &target), order, last, topics: 3 }
    }

    fn lane(&self, stored: Stored) -> (Stored, Option<Lane>) {
        let lane = Lane::of(&stored.message, &self.order);
        (stored, lane)
    }

    /// Reads one page, of which the first `max` messages arrive. Gives the numbers asked for.
    fn read(&mut self, now: UnixMillis, max: usize) -> Vec<u64> {
        let Some(wanted) = self.window.wanted(now, |cursor| cursor.0 < self.last) else { return Vec::new() };
        let (after, numbers): (_, Vec<_>) = match &wanted {
            Wanted::New { after, max } => (*after, (after.0 + 1..=self.last).take(*max).collect()),
            Wanted::Again(again) => (Lsn::ZERO, again.numbers.iter().map(|lsn| lsn.0).collect()),
        };
        let arriving = numbers.iter().take(max);
        let messages: Vec<_> =
            arriving.map(|lsn| self.lane(stored(*lsn, NOW, &(lsn % self.topics).to_string()))).collect();
        let cursor = messages.last().map_or(after, |(last, _)| last.lsn);
        let is_whole = messages.len() == numbers.len();
        self.window.arrived(now, wanted, Arrived { messages, cursor, is_whole });
        numbers
    }

    fn start(&mut self) -> Vec<u64> {
        self.window.start().iter().map(|work| work.stored.lsn.0).collect()
    }

    fn start_all(&mut self) -> Vec<Vec<u64>> {
        std::iter::from_fn(|| Some(self.start()).filter(|batch| !batch.is_empty())).collect()
    }

    fn settle(&mut self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|lsn| self.window.settled(Lsn(lsn)));
    }

    fn wait(&mut self, lsn: u64, at: u64) {
        self.window.wait(Lsn(lsn), history(""), UnixMillis(at));
    }
}

fn batch(count: u32) -> BatchConfig {
    BatchConfig { count, ..BatchConfig::default() }
}

#[test]
fn what_a_page_has_no_room_for_comes_with_the_next() {
    let mut fixture = Fixture::new(Order::None, 1, 5);
    assert_eq!(fixture.read(NOW, 2), [1, 2, 3, 4, 5]);
    assert_eq!(fixture.read(NOW, 2), [3, 4, 5]);
    assert_eq!(fixture.read(NOW, 9), [5]);
    assert_eq!(fixture.read(NOW, 9), [0; 0]);
}

#[test]
fn no_more_is_read_than_is_needed_soon() {
    let mut fixture = Fixture::new(Order::None, 200, 1000);
    assert_eq!(fixture.read(NOW, 999).len(), 200);
    assert_eq!(fixture.read(NOW, 999).len(), 0);
    assert_eq!(fixture.start(), [1]);
    assert_eq!(fixture.read(NOW, 999).len(), 200);
    fixture.window.held_bytes = HELD_BYTES_MAX;
    fixture.window.start();
    assert_eq!(fixture.read(NOW, 999).len(), 0, "or than there is room for");
}

#[test]
fn a_retry_is_read_when_it_is_due_and_before_what_is_new() {
    let mut fixture = Fixture::new(Order::None, 2, 2);
    fixture.read(NOW, 9);
    for lsn in [1, 2] {
        assert_eq!(fixture.start(), [lsn]);
        fixture.wait(lsn, 3000 - lsn);
    }
    assert_eq!(fixture.window.due(), UnixMillis(2998));
    assert_eq!(fixture.read(NOW, 9), [0; 0]);
    fixture.last = 3;
    assert_eq!(fixture.read(UnixMillis(2999), 1), [2, 1], "the earliest first");
    assert_eq!(fixture.read(UnixMillis(2999), 9), [1], "and what was not read is due still");
    assert_eq!(fixture.read(UnixMillis(2999), 9), [3]);
    assert_eq!(fixture.start_all(), [[1], [2], [3]]);
}

#[test]
fn only_so_many_are_looked_at_past_the_oldest_that_is_not_settled() {
    let mut fixture = Fixture::new(Order::None, 1024, u64::MAX);
    let mut started = 0;
    while !fixture.read(NOW, usize::MAX).is_empty() {
        for lsn in fixture.start_all().concat() {
            started += 1;
            assert!(started <= SPAN_MAX, "one more is looked at");
            if lsn > 1 {
                fixture.settle([lsn]);
            }
        }
    }
    assert_eq!(started, SPAN_MAX);
    fixture.settle([1]);
    assert!(fixture.window.taken.is_empty());
    assert_eq!(fixture.read(NOW, 1).first(), Some(&(SPAN_MAX as u64 + 1)));
}

#[test]
fn in_one_lane_nothing_starts_before_the_oldest_is_settled() {
    let mut fixture = Fixture::new(Order::All, 4, 3);
    fixture.read(NOW, 9);
    assert_eq!(fixture.start_all(), [[1]]);
    fixture.wait(1, 2000);
    assert!(fixture.start().is_empty(), "it waits");
    fixture.read(UnixMillis(2000), 9);
    let batch = fixture.window.start();
    assert_eq!(batch[0].stored.lsn, Lsn(1));
    fixture.window.put_back(batch, NOW);
    assert_eq!(fixture.start(), [1], "it comes first also when its target was down");
    fixture.settle([1]);
    assert_eq!(fixture.start_all(), [[2]]);
}

#[test]
fn lanes_do_not_wait_for_each_other() {
    let mut fixture = Fixture::new(Order::Topic, 4, 9);
    fixture.read(NOW, 9);
    assert_eq!(fixture.start_all(), [[1], [2], [3]]);
    fixture.wait(1, 9000);
    fixture.settle([3, 2]);
    assert_eq!(fixture.start_all(), [[5], [6]], "4 is behind 1");
    fixture.settle([5, 6]);
    assert_eq!(fixture.start_all(), [[8], [9]]);
    fixture.settle([1]);
    assert_eq!(fixture.start_all(), [[4]]);
}

#[test]
fn a_lane_that_is_blocked_does_not_hide_what_is_behind() {
    let mut fixture = Fixture::new(Order::Topic, 1, 10_000);
    fixture.topics = 1;
    fixture.read(NOW, 99);
    assert_eq!(fixture.start(), [1]);
    fixture.wait(1, 9000);
    while fixture.window.cursor.0 < 5000 {
        assert!(!fixture.read(NOW, 99).is_empty());
    }
    assert!(fixture.window.held.len() <= 4 * fixture.window.enough, "{} are held", fixture.window.held.len());
    fixture.topics = 10_000;
    fixture.read(NOW, 999);
    assert_eq!(fixture.start_all().len(), PAGE_MIN, "the first ones of other lanes");
    // And when it is free again, all of it comes in order.
    fixture.settle([1]);
    fixture.topics = 1;
    for lsn in 2..=5000 {
        while fixture.window.next_start(NOW) == Start::Never {
            assert!(!fixture.read(NOW, 99).is_empty());
        }
        assert_eq!(fixture.start(), [lsn]);
        fixture.settle([lsn]);
    }
}

#[test]
fn a_batch_takes_what_waits_and_keeps_the_order_of_lanes() {
    let mut fixture = Fixture::with_batch(Order::Topic, 2, 10, Some(batch(4)));
    fixture.read(NOW, 99);
    assert_eq!(fixture.start(), [1, 2, 3, 4]);
    assert!(fixture.start().is_empty(), "every lane has one in flight");
    fixture.settle([1, 2, 3]);
    assert_eq!(fixture.start(), [5, 6, 8, 9], "7 and 10 are behind 4");
    fixture.settle([4]);
    assert_eq!(fixture.start(), [7, 10]);
}

#[test]
fn a_batch_ends_before_it_is_too_large() {
    let mut fixture = Fixture::with_batch(Order::None, 2, 3, Some(BatchConfig { bytes: 5, ..batch(9) }));
    fixture.read(NOW, 99);
    let size = fixture.window.held.values().next().unwrap().work.stored.message.size();
    fixture.window.batch.bytes = 2 * size + 1;
    assert_eq!(fixture.start_all(), [vec![1, 2], vec![3]]);
}

#[test]
fn a_batch_that_is_not_full_waits_for_more() {
    let linger = Duration::from_millis(50);
    let mut fixture = Fixture::with_batch(Order::None, 2, 2, Some(BatchConfig { linger, ..batch(3) }));
    assert_eq!(fixture.window.next_start(NOW), Start::Never);
    fixture.read(NOW, 99);
    assert_eq!(fixture.window.next_start(NOW), Start::At(NOW.plus(linger)));
    assert_eq!(fixture.window.next_start(NOW.plus(linger)), Start::Now);
    fixture.last = 3;
    fixture.read(NOW, 99);
    assert_eq!(fixture.window.next_start(NOW), Start::Now, "it is full");
}

#[test]
fn what_was_tried_does_not_wait_for_more_again() {
    let linger = Duration::from_mins(10);
    let mut fixture = Fixture::with_batch(Order::None, 2, 2, Some(BatchConfig { linger, ..batch(3) }));
    fixture.read(NOW, 99);
    let mut refused = fixture.window.start();
    for work in &mut refused {
        work.history = Some(history(""));
    }
    fixture.window.put_back(refused, NOW);
    assert_eq!(fixture.window.next_start(NOW), Start::Now);
}

/// Many messages that are answered with much text, each its own, more than thirty times.
#[test]
fn histories_have_little_room_together() {
    const COUNT: u64 = 20_000;
    let mut fixture = Fixture::new(Order::None, 64, 0);
    for round in 0..34 {
        for lsn in 1..=COUNT {
            let at = |round| (UnixMillis(round), Lsn(lsn));
            let mut history = fixture.window.waiting.remove(&at(round)).unwrap_or_else(|| history(""));
            let excerpt = format!("{round} {lsn} {}", "x".repeat(300)).into();
            let outcome = AttemptOutcome::Answered { status: 500, excerpt };
            history.attempts.add(Attempt { at: NOW, latency_ms: Some(1), outcome }, NOW);
            fixture.window.wait(Lsn(lsn), history, UnixMillis(round + 1));
        }
    }
    let lists = fixture.window.waiting.values().map(|history| &history.attempts.list);
    let bytes_of = |attempt: &Attempt| size_of::<Attempt>() + attempt.outcome.text().len();
    let bytes: usize = lists.clone().flatten().map(bytes_of).sum();
    assert!(bytes <= HISTORIES_BYTES_MAX, "{bytes}");
    assert!(lists.clone().all(|list| !list.last().unwrap().outcome.text().is_empty()));
}

#[test]
fn a_batch_is_no_larger_than_the_last_one_that_was_refused_allows() {
    let mut fixture = Fixture::with_batch(Order::All, 2, 6, Some(batch(4)));
    fixture.read(NOW, 99);
    let mut refused = fixture.window.start();
    for work in &mut refused {
        work.history = Some(Box::new(History { batch_max: 2, ..*history("") }));
    }
    fixture.window.put_back(refused, NOW);
    let mut sent = Vec::new();
    while let batch @ [_, ..] = &fixture.start()[..] {
        sent.push(batch.to_vec());
        fixture.settle(batch.iter().copied());
    }
    assert_eq!(sent, [[1, 2], [3, 4], [5, 6]]);
}

#[test]
fn each_probe_is_made_with_another_message() {
    let mut fixture = Fixture::new(Order::None, 2, 3);
    fixture.read(NOW, 9);
    let mut probed = Vec::new();
    for _ in 0..4 {
        let batch = fixture.window.start();
        probed.push(batch[0].stored.lsn.0);
        fixture.window.put_back(batch, NOW);
    }
    assert_eq!(probed, [1, 2, 3, 1]);
}

#[test]
fn what_is_too_old_is_taken_out_wherever_it_stands() {
    let mut fixture = Fixture::new(Order::None, 2, 0);
    let wanted = Wanted::New { after: Lsn::ZERO, max: 9 };
    let messages = [(1, 1000), (2, 500), (3, 1000)];
    let messages = messages.map(|(lsn, at)| (stored(lsn, UnixMillis(at), "a"), None)).into();
    fixture.window.arrived(NOW, wanted, Arrived { messages, cursor: Lsn(3), is_whole: true });
    assert_eq!(fixture.window.held_until(), UnixMillis(500 + MAX_AGE));
    assert!(fixture.window.overdue(UnixMillis(499 + MAX_AGE)).is_empty());
    let overdue = fixture.window.overdue(UnixMillis(500 + MAX_AGE));
    assert_eq!(overdue.iter().map(|work| work.stored.lsn.0).collect::<Vec<_>>(), [2]);
    assert_eq!(fixture.window.held_until(), UnixMillis(1000 + MAX_AGE));
    assert_eq!(fixture.start_all(), [[1], [3]]);
}

#[test]
fn the_oldest_goes_first_though_its_lane_is_blocked_and_there_was_no_room_for_it() {
    let mut fixture = Fixture::new(Order::All, 1, 500);
    fixture.read(NOW, 99);
    assert_eq!(fixture.start(), [1]);
    fixture.wait(1, 9000);
    for lsn in 2..500 {
        while fixture.window.held.is_empty() {
            assert!(!fixture.read(NOW, 99).is_empty());
        }
        let work = fixture.window.shed(|cursor| cursor.0 < 500).unwrap();
        assert_eq!(work.stored.lsn, Lsn(lsn));
        fixture.settle([lsn]);
    }
    fixture.read(NOW, 99);
    assert!(fixture.window.shed(|cursor| cursor.0 < 500).is_none(), "the newest stays");
}

#[test]
fn a_message_that_waits_keeps_little_of_its_last_answer() {
    let mut fixture = Fixture::new(Order::None, 2, 1);
    fixture.read(NOW, 9);
    assert_eq!(fixture.start(), [1]);
    fixture.window.wait(Lsn(1), history(&"ä".repeat(1000)), NOW);
    fixture.read(NOW, 9);
    let kept = fixture.window.start().pop().unwrap().history.unwrap();
    assert_eq!(kept.attempts.list[0].outcome.text().len(), 256);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize),
    Start,
    Settle(usize),
    Wait(usize, u64),
    PutBack(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..20).prop_map(Step::Read),
        Just(Step::Start),
        Just(Step::Start),
        any::<usize>().prop_map(Step::Settle),
        (any::<usize>(), 0u64..50).prop_map(|(which, after)| Step::Wait(which, after)),
        any::<usize>().prop_map(Step::PutBack),
        (0u64..30).prop_map(Step::Pass),
    ]
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::None), Just(Order::Topic), Just(Order::All)]
}

proptest! {
    /// Whatever happens to them, messages of a lane are sent in their order, each when those ahead of it are
    /// settled or ahead of it in the same request; none is in flight twice; and in the end each was settled once.
    #[test]
    fn no_message_is_lost_or_in_two_places_or_overtakes(
        steps in proptest::collection::vec(step(), 0..300),
        order in orders(),
        concurrency in 1u32..4,
        count in 1u32..6,
    ) {
        const LAST: u64 = 120;
        let mut fixture = Fixture::with_batch(order.clone(), concurrency, LAST, Some(batch(count)));
        let lane = |lsn: u64| match order { Order::None => lsn, Order::All => 0, _ => lsn % 3 };
        let mut open: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        (1..=LAST).for_each(|lsn| open.entry(lane(lsn)).or_default().push(lsn));
        let (mut now, mut in_flight): (_, Vec<Vec<Work>>) = (NOW, Vec::new());
        let finish = (0..900).flat_map(|_| [Step::Pass(50), Step::Read(99), Step::Start, Step::Settle(0)]);
        for step in steps.into_iter().chain(finish) {
            let flying = in_flight.len();
            match step {
                Step::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                Step::Read(max) => { fixture.read(now, max); }
                Step::Start => {
                    let batch = fixture.window.start();
                    prop_assert!(batch.len() <= count as usize);
                    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
                    for work in &batch {
                        let lsn = work.stored.lsn.0;
                        let place = places.entry(lane(lsn)).or_default();
                        prop_assert_eq!(open[&lane(lsn)].get(*place), Some(&lsn), "it overtakes");
                        *place += 1;
                        let mut flying = in_flight.iter().flatten();
                        prop_assert!(flying.all(|other| other.stored.lsn.0 != lsn), "it is in flight");
                    }
                    if !batch.is_empty() { in_flight.push(batch); }
                }
                _ if flying == 0 => {}
                Step::Settle(which) => {
                    for work in in_flight.swap_remove(which % flying) {
                        let lsn = work.stored.lsn.0;
                        fixture.window.settled(Lsn(lsn));
                        open.get_mut(&lane(lsn)).unwrap().retain(|other| *other != lsn);
                    }
                }
                Step::Wait(which, after) => {
                    for work in in_flight.swap_remove(which % flying) {
                        let at = now.plus(Duration::from_millis(after));
                        fixture.window.wait(work.stored.lsn, history(""), at);
                    }
                }
                Step::PutBack(which) => {
                    let batch = in_flight.swap_remove(which % flying);
                    fixture.window.put_back(batch, now);
                }
            }
        }
        prop_assert!(open.values().all(Vec::is_empty), "{:?}", open);
        prop_assert!(fixture.window.taken.is_empty());
        prop_assert!(fixture.window.absent.is_empty());
    }
}
