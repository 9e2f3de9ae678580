//! The window against a backlog of plain numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::codec::Qos;
use crate::record::{Attempt, AttemptOutcome, Leg, Message, MessageParts, RecipientNo, SubscriptionIds};

const NOW: UnixMillis = UnixMillis(1000);
const MAX_AGE: u64 = 100_000;

fn target(concurrency: u32) -> TargetConfig {
    let mut target = TargetConfig::new(http::Uri::from_static("http://127.0.0.1/"));
    target.concurrency = concurrency;
    target.retry.max_age = Duration::from_millis(MAX_AGE);
    target
}

fn stored(lsn: Lsn, published_at: UnixMillis) -> Stored {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at,
        expires_at: UnixMillis::NEVER,
        topic: "a",
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
    Stored { lsn, message: Message::new(&parts, &mut Vec::new()), leg, origin: None, bytes: 0 }
}

fn history(answer: &str) -> Box<History> {
    let outcome = AttemptOutcome::Answered { status: 500, excerpt: answer.into() };
    let mut attempts = Attempts::begin(NOW);
    attempts.add(Attempt { at: NOW, latency_ms: Some(1), outcome }, NOW);
    Box::new(History { tries: Tries::begin(NOW), attempts })
}

/// A window whose backlog is every number up to `last`.
struct Fixture {
    window: Window,
    last: u64,
}

impl Fixture {
    fn new(concurrency: u32, last: u64) -> Self {
        Self { window: Window::new(&target(concurrency), None), last }
    }

    /// Reads one page, of which the first `max` messages arrive. Gives the numbers asked for.
    fn read(&mut self, now: UnixMillis, max: usize) -> Vec<u64> {
        let Some(wanted) = self.window.wanted(now, |cursor| cursor.0 < self.last) else { return Vec::new() };
        let (after, numbers): (_, Vec<_>) = match &wanted {
            Wanted::New { after, max } => (*after, (after.0 + 1..=self.last).take(*max).collect()),
            Wanted::Again(retries) => (Lsn::ZERO, retries.numbers.iter().map(|lsn| lsn.0).collect()),
        };
        let messages: Vec<_> = numbers.iter().take(max).map(|lsn| stored(Lsn(*lsn), NOW)).collect();
        let cursor = messages.last().map_or(after, |last| last.lsn);
        let is_whole = messages.len() == numbers.len();
        self.window.arrived(now, wanted, Page { messages, cursor, is_last: false, is_whole });
        numbers
    }

    fn start(&mut self) -> Option<u64> {
        self.window.start().map(|work| work.stored.lsn.0)
    }

    fn wait(&mut self, lsn: u64, at: u64) {
        self.window.wait(Lsn(lsn), history(""), UnixMillis(at));
    }
}

#[test]
fn what_a_page_has_no_room_for_comes_with_the_next() {
    let mut fixture = Fixture::new(1, 5);
    assert_eq!(fixture.read(NOW, 2), [1, 2, 3, 4, 5]);
    assert_eq!(fixture.read(NOW, 2), [3, 4, 5]);
    assert_eq!(fixture.read(NOW, 9), [5]);
    assert_eq!(fixture.read(NOW, 9), [0; 0]);
}

#[test]
fn no_more_is_read_than_is_needed_soon() {
    let mut fixture = Fixture::new(20, 1000);
    assert_eq!(fixture.read(NOW, 99).len(), 20);
    assert_eq!(fixture.read(NOW, 99).len(), 0);
    assert_eq!(fixture.start(), Some(1));
    assert_eq!(fixture.read(NOW, 99).len(), 20);
}

#[test]
fn a_retry_is_read_when_it_is_due_and_before_what_is_new() {
    let mut fixture = Fixture::new(2, 2);
    fixture.read(NOW, 9);
    for lsn in [1, 2] {
        assert_eq!(fixture.start(), Some(lsn));
        fixture.wait(lsn, 3000 - lsn);
    }
    assert_eq!(fixture.window.due(), UnixMillis(2998));
    assert_eq!(fixture.read(NOW, 9), [0; 0]);
    fixture.last = 3;
    assert_eq!(fixture.read(UnixMillis(2999), 1), [2, 1], "the earliest first");
    assert_eq!(fixture.read(UnixMillis(2999), 9), [1], "and what was not read is due still");
    assert_eq!(fixture.read(UnixMillis(2999), 9), [3]);
    assert_eq!([fixture.start(), fixture.start(), fixture.start()], [Some(1), Some(2), Some(3)]);
}

#[test]
fn only_so_many_are_looked_at_past_the_oldest_that_is_not_settled() {
    let mut fixture = Fixture::new(1024, u64::MAX);
    let mut started = Vec::new();
    while !fixture.read(NOW, usize::MAX).is_empty() {
        while let Some(lsn) = fixture.start() {
            started.push(lsn);
            assert!(started.len() <= SPAN_MAX, "one more is looked at");
            if lsn > 1 {
                fixture.window.settled(Lsn(lsn));
            }
        }
    }
    assert_eq!(started.len(), SPAN_MAX);
    fixture.window.settled(Lsn(1));
    assert!(fixture.window.taken.is_empty());
    assert_eq!(fixture.read(NOW, 1).first(), Some(&(SPAN_MAX as u64 + 1)));
}

#[test]
fn in_order_nothing_starts_before_the_oldest_is_settled() {
    let mut fixture = Fixture::new(1, 3);
    fixture.read(NOW, 9);
    assert_eq!(fixture.start(), Some(1));
    assert_eq!(fixture.start(), None, "it is in flight");
    fixture.wait(1, 2000);
    assert_eq!(fixture.start(), None, "it waits");
    fixture.read(UnixMillis(2000), 9);
    let work = fixture.window.start().unwrap();
    assert_eq!(work.stored.lsn, Lsn(1));
    fixture.window.hold(work);
    assert_eq!(fixture.start(), Some(1), "it comes first also when its target was down");
    fixture.window.settled(Lsn(1));
    assert_eq!(fixture.start(), Some(2));
}

#[test]
fn in_order_a_retry_is_read_however_much_is_ready() {
    let mut fixture = Fixture::new(1, 100);
    fixture.read(NOW, 15);
    fixture.read(NOW, 99);
    assert_eq!(fixture.start(), Some(1));
    fixture.wait(1, 2000);
    assert_eq!(fixture.window.due(), UnixMillis(2000));
    assert_eq!(fixture.read(UnixMillis(2000), 99), [1]);
    assert_eq!(fixture.start(), Some(1));
}

#[test]
fn each_probe_is_made_with_another_message() {
    let mut fixture = Fixture::new(2, 3);
    fixture.read(NOW, 9);
    let mut probed = Vec::new();
    for _ in 0..4 {
        let work = fixture.window.start().unwrap();
        probed.push(work.stored.lsn.0);
        fixture.window.hold(work);
    }
    assert_eq!(probed, [1, 2, 3, 1]);
}

#[test]
fn what_is_too_old_is_taken_out_wherever_it_stands() {
    let mut fixture = Fixture::new(2, 0);
    let wanted = Wanted::New { after: Lsn::ZERO, max: 9 };
    let messages = [(1, 1000), (2, 500), (3, 1000)].map(|(lsn, at)| stored(Lsn(lsn), UnixMillis(at)));
    let page = Page { messages: messages.into(), cursor: Lsn(3), is_last: false, is_whole: true };
    fixture.window.arrived(NOW, wanted, page);
    assert_eq!(fixture.window.ready_until(), UnixMillis(500 + MAX_AGE));
    assert!(fixture.window.overdue(UnixMillis(499 + MAX_AGE)).is_empty());
    let overdue = fixture.window.overdue(UnixMillis(500 + MAX_AGE));
    assert_eq!(overdue.iter().map(|work| work.stored.lsn.0).collect::<Vec<_>>(), [2]);
    assert_eq!(fixture.window.ready_until(), UnixMillis(1000 + MAX_AGE));
    assert_eq!([fixture.start(), fixture.start(), fixture.start()], [Some(1), Some(3), None]);
}

#[test]
fn a_message_that_waits_keeps_little_of_its_last_answer() {
    let mut fixture = Fixture::new(2, 1);
    fixture.read(NOW, 9);
    assert_eq!(fixture.start(), Some(1));
    fixture.window.wait(Lsn(1), history(&"ä".repeat(1000)), NOW);
    fixture.read(NOW, 9);
    let kept = fixture.window.start().unwrap().history.unwrap();
    assert_eq!(kept.attempts.list[0].outcome.text().len(), 256);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize),
    Start,
    Settle(usize),
    Wait(usize, u64),
    Hold(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..20).prop_map(Step::Read),
        Just(Step::Start),
        Just(Step::Start),
        any::<usize>().prop_map(Step::Settle),
        (any::<usize>(), 0u64..50).prop_map(|(which, after)| Step::Wait(which, after)),
        any::<usize>().prop_map(Step::Hold),
        (0u64..30).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens to them, messages first start in the order of their numbers, none is in flight
    /// twice, and in the end each was settled once.
    #[test]
    fn no_message_is_lost_or_in_two_places(
        steps in proptest::collection::vec(step(), 0..300),
        concurrency in 1u32..4,
    ) {
        let mut fixture = Fixture::new(concurrency, 40);
        let (mut now, mut first_starts, mut settled) = (NOW, Vec::new(), BTreeSet::new());
        let mut in_flight: Vec<Work> = Vec::new();
        let finish = (0..400).flat_map(|_| [Step::Pass(50), Step::Read(99), Step::Start, Step::Settle(0)]);
        for step in steps.into_iter().chain(finish) {
            let flying = in_flight.len();
            match step {
                Step::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                Step::Read(max) => { fixture.read(now, max); }
                Step::Start => if let Some(work) = fixture.window.start() {
                    let lsn = work.stored.lsn;
                    prop_assert!(!settled.contains(&lsn));
                    prop_assert!(in_flight.iter().all(|other| other.stored.lsn != lsn));
                    prop_assert!(concurrency > 1 || flying == 0);
                    if !first_starts.contains(&lsn) { first_starts.push(lsn); }
                    in_flight.push(work);
                },
                _ if flying == 0 => {}
                Step::Settle(which) => {
                    let lsn = in_flight.swap_remove(which % flying).stored.lsn;
                    fixture.window.settled(lsn);
                    prop_assert!(settled.insert(lsn));
                }
                Step::Wait(which, after) => {
                    let lsn = in_flight.swap_remove(which % flying).stored.lsn;
                    fixture.window.wait(lsn, history(""), now.plus(Duration::from_millis(after)));
                }
                Step::Hold(which) => {
                    let work = in_flight.swap_remove(which % flying);
                    fixture.window.hold(work);
                }
            }
        }
        prop_assert_eq!(settled.len(), 40);
        prop_assert!(first_starts.is_sorted());
        prop_assert!(fixture.window.taken.is_empty());
    }
}
