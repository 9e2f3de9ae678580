//! How many requests a target has at once: it grows by one while the target keeps up, and shrinks to a part when the
//! target says that it is too much, or when it becomes slower.
//!
//! Answers are looked at in rounds of as many as there are requests at once. A round that took clearly longer, on
//! average, than the rounds before says that more at once only wait for each other at the target. A fixed number
//! shrinks, too, when the target throttles, and then grows back; how fast it answers is not looked at.
//!
//! Counts answers and no time, so that it is the same for a target that answers in a millisecond and for one that
//! takes ten seconds.
//!
//! Invariant: the limit is never below the least and never above the most that it was made with.

use std::time::Duration;

/// Fewest answers of which an average is taken.
const ROUND_MIN: u32 = 8;
/// What becomes of the limit when the target throttles.
const THROTTLED: f64 = 0.5;
/// What becomes of it when the target is slower: enough for the next rounds to show how fast it is with fewer.
const SLOWER: f64 = 0.75;
/// A round this much longer than usual is slower. Up to that the limit grows: it has to come so far now and then, or
/// what is usual would creep after it.
const TOO_SLOW: f64 = 1.25;
/// Weight of a round in what is usual, when it was faster than that, and when it was not: a target that has become
/// slower for good is believed after a hundred rounds or two.
const FASTER_WEIGHT: f64 = 0.4;
const SLOWER_WEIGHT: f64 = 0.01;

/// The limit of one target.
#[derive(Clone, Debug)]
pub struct Limit {
    min: u32,
    max: u32,
    adaptive: bool,
    now: u32,
    /// So many answers belong to requests that began before the limit shrank.
    stale: u32,
    round: Round,
    /// Seconds of an answer in usual rounds.
    usual: Option<f64>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It came after this time.
    Answered(Duration),
    /// It was too much for the target: it said so, or did not come to an answer.
    Throttled,
    /// Nothing: there was no connection, say.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    answers: u32,
    seconds: f64,
    /// At some time there were as many requests at once as the limit allows.
    was_full: bool,
}

impl Limit {
    /// At most so many, as long as the target does not throttle.
    pub fn fixed(max: u32) -> Self {
        Self::new((1, max.max(1)), max, false)
    }

    /// So few at first, and so many as the target keeps up with.
    pub fn adaptive(min: u32, max: u32) -> Self {
        Self::new((min.max(1), max.max(min)), min, true)
    }

    fn new((min, max): (u32, u32), now: u32, adaptive: bool) -> Self {
        let round = Round::default();
        Self { min, max, adaptive, now: now.clamp(min, max), stale: 0, round, usual: None }
    }

    /// Most requests at once, now.
    pub fn get(&self) -> u32 {
        self.now
    }

    /// An attempt ended; with it there were so many under way.
    pub fn ended(&mut self, pace: Pace, in_flight: u32) {
        let is_stale = self.stale > 0;
        self.stale = self.stale.saturating_sub(1);
        match pace {
            Pace::Throttled if !is_stale => self.shrink(THROTTLED, in_flight),
            Pace::Answered(latency) if !is_stale => {
                self.round.answers += 1;
                self.round.seconds += latency.as_secs_f64();
                self.round.was_full |= in_flight >= self.now;
                if self.round.answers >= self.now.max(ROUND_MIN) {
                    let round = std::mem::take(&mut self.round);
                    self.judge(round, in_flight);
                }
            }
            _ => {}
        }
    }

    fn judge(&mut self, round: Round, in_flight: u32) {
        if !self.adaptive {
            return self.grow();
        }
        let seconds = round.seconds / f64::from(round.answers);
        let usual = self.usual.unwrap_or(seconds);
        let weight = if seconds < usual { FASTER_WEIGHT } else { SLOWER_WEIGHT };
        self.usual = Some(usual + weight * (seconds - usual));
        if seconds > usual * TOO_SLOW {
            self.shrink(SLOWER, in_flight);
        } else if round.was_full {
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.now = self.now.saturating_add(1).min(self.max);
    }

    fn shrink(&mut self, part: f64, in_flight: u32) {
        // The others under way were sent under the old limit, and say nothing of the new one.
        self.stale = in_flight.saturating_sub(1);
        self.round = Round::default();
        self.now = ((f64::from(self.now) * part) as u32).clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A target with so many workers, each of which takes about 50 ms for a request; what finds none free waits.
    struct Server {
        free_at: Vec<f64>,
        random: u64,
    }

    impl Server {
        fn new(workers: usize) -> Self {
            Self { free_at: vec![0.0; workers], random: 1 }
        }

        /// When a request that comes now is answered.
        fn answers_at(&mut self, now: f64) -> f64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = (self.random >> 40) as f64 / (1u64 << 24) as f64;
            let worker = self.free_at.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            *worker = worker.max(now) + 0.04 + 0.02 * noise;
            *worker
        }
    }

    /// Always as many requests as the limit allows. Gives the limit after each answer.
    fn run(limit: &mut Limit, server: &mut Server, answers: usize) -> Vec<u32> {
        let mut now = 0.0;
        let mut under_way: VecDeque<(f64, f64)> = VecDeque::new();
        let mut limits = Vec::new();
        for _ in 0..answers {
            while under_way.len() < limit.get() as usize {
                let at = server.answers_at(now);
                let place = under_way.partition_point(|(other, _)| *other <= at);
                under_way.insert(place, (at, now));
            }
            let in_flight = under_way.len() as u32;
            let (at, began) = under_way.pop_front().unwrap();
            now = at;
            limit.ended(Pace::Answered(Duration::from_secs_f64(at - began)), in_flight);
            limits.push(limit.get());
        }
        limits
    }

    #[test]
    fn it_settles_where_the_target_saturates() {
        for workers in [5, 20, 50, 150] {
            let mut limit = Limit::adaptive(1, 200);
            let limits = run(&mut limit, &mut Server::new(workers), 60_000);
            let settled = &limits[30_000..];
            let mean = settled.iter().sum::<u32>() as f64 / settled.len() as f64;
            let (low, high) = (settled.iter().min().unwrap(), settled.iter().max().unwrap());
            println!("{workers} workers: {low} to {high}, on average {mean:.1}");
            let workers = workers as f64;
            assert!(
                mean > 0.85 * workers && mean < 1.4 * workers + 1.0,
                "{workers} workers, {mean} on average"
            );
            assert!(f64::from(*high) < 1.8 * workers + 2.0, "{workers} workers, at most {high}");
        }
    }

    #[test]
    fn it_follows_a_target_that_has_fewer_workers_now() {
        let mut limit = Limit::adaptive(1, 200);
        run(&mut limit, &mut Server::new(40), 20_000);
        assert!(limit.get() > 30, "{}", limit.get());
        let limits = run(&mut limit, &mut Server::new(10), 20_000);
        let settled = &limits[10_000..];
        let mean = settled.iter().sum::<u32>() as f64 / settled.len() as f64;
        assert!(mean > 8.0 && mean < 16.0, "{mean}");
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_used() {
        let mut limit = Limit::adaptive(4, 64);
        for _ in 0..1000 {
            limit.ended(Pace::Answered(Duration::from_millis(5)), 3);
        }
        assert_eq!(limit.get(), 4);
    }

    #[test]
    fn throttling_halves_it_once_for_all_that_were_under_way_and_answers_bring_it_back() {
        let mut limit = Limit::fixed(16);
        for _ in 0..16 {
            limit.ended(Pace::Throttled, 16);
        }
        assert_eq!(limit.get(), 8, "one by one they would make it 1");
        limit.ended(Pace::Throttled, 8);
        assert_eq!(limit.get(), 4, "that one was sent after the first");
        for _ in 0..300 {
            limit.ended(Pace::Answered(Duration::from_millis(5)), 4);
        }
        assert_eq!(limit.get(), 16);
    }

    #[test]
    fn a_fixed_number_is_not_changed_by_slowness_or_by_what_says_nothing() {
        let mut limit = Limit::fixed(16);
        for seconds in 0..1000 {
            limit.ended(Pace::Answered(Duration::from_secs(seconds)), 16);
            limit.ended(Pace::Unknown, 16);
        }
        assert_eq!(limit.get(), 16);
    }

    #[test]
    fn it_stays_within_its_ends() {
        let mut limit = Limit::adaptive(2, 3);
        for _ in 0..100 {
            limit.ended(Pace::Throttled, 2);
            assert!((2..=3).contains(&limit.get()));
        }
        assert_eq!(Limit::fixed(0).get(), 1);
    }
}
