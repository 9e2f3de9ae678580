//! Kills at random moments under load, in rounds: load with kills, then the backlog of the session that was
//! offline is drained with kills, then the history of the round is checked. The database is one for all
//! rounds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use causeway::codec::Qos;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::broker::Broker;
use crate::gate::{Gate, PATIENCE};
use crate::history::{History, Inbox, Keys, Published};
use crate::publisher::{self, Publisher};
use crate::subscriber::{Running, Subscriber};
use crate::target::HttpTarget;
use crate::wire::{Event, Message, Terms, Wire};

const PUBLISHERS: usize = 4;

/// Kills of one round while the backlog is drained.
const DRAIN_KILLS: usize = 2;

/// Kills of one round, all together.
const ROUND_KILLS: usize = 8;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_of_qos_2_is_doubled() {
    let kills = number_from("CAUSEWAY_CRASH_KILLS").unwrap_or(ROUND_KILLS as u64) as usize;
    let seed = number_from("CAUSEWAY_CRASH_SEED").unwrap_or_else(rand::random);
    let mut world = World::new(seed);
    let mut round = 0;
    while world.broker.kills < kills {
        world.round(round);
        round += 1;
    }
    println!("{} kills in {round} rounds, nothing lost or doubled: {:?}", world.broker.kills, world.totals);
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

struct World {
    seed: u64,
    rng: StdRng,
    broker: Broker,
    target: HttpTarget,
    keys: Keys,
    /// Two that are there while the load is, one that comes when it is over.
    online: Vec<Subscriber>,
    offline: Vec<Subscriber>,
    /// Of one shared group: each message goes to one of them.
    members: Vec<Subscriber>,
    /// By topic, what a retained message may be: the last that was acknowledged, or a later one.
    kept: Kept,
    totals: Totals,
}

type Kept = HashMap<String, Vec<String>>;

#[derive(Debug, Default)]
struct Totals {
    acknowledged: usize,
    resent: usize,
    received: usize,
    posted: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        println!("CAUSEWAY_CRASH_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let target = HttpTarget::start(rng.random());
        let broker = Broker::start(&target.route("load/#"));
        let mut subscriber = |name: &str, qos, window, filter| {
            let terms = Terms { receive_maximum: window, ..Terms::durable(name) };
            let subscriber = Subscriber::new(terms, qos, StdRng::seed_from_u64(rng.random()));
            subscriber.subscribe(broker.address, filter);
            subscriber
        };
        let online = vec![
            subscriber("online-qos-2", Qos::ExactlyOnce, 20, "load/#"),
            subscriber("online-qos-1", Qos::AtLeastOnce, 100, "load/#"),
        ];
        let offline = vec![subscriber("offline", Qos::ExactlyOnce, 200, "load/#")];
        let members = ["member-1", "member-2"];
        let members =
            members.map(|name| subscriber(name, Qos::ExactlyOnce, 10, "$share/group/load/#")).into();
        let (keys, kept, totals) = (Keys::new(), Kept::new(), Totals::default());
        Self { seed, rng, broker, target, keys, online, offline, members, kept, totals }
    }

    fn round(&mut self, round: usize) {
        let gate = Arc::new(Gate::default());
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|number| Publisher::new(number, round, self.fork_rng(), &gate)).collect();
        let logs: Vec<_> = publishers.iter().map(|publisher| Arc::clone(&publisher.log)).collect();
        let publishers: Vec<_> = publishers.into_iter().map(Publisher::spawn).collect();
        let online = spawn_all(&mut self.online, &gate);
        let members = spawn_all(&mut self.members, &gate);
        for _ in 0..ROUND_KILLS - DRAIN_KILLS {
            self.kill_after(50..500, &gate);
            self.check_kept(&logs);
        }
        gate.open(self.broker.address);
        gate.wind_up();
        publishers.into_iter().for_each(join);
        self.check_kept(&logs);
        self.kept = self.allowed(&logs);
        let mut published: Vec<_> =
            logs.iter().flat_map(|log| std::mem::take(&mut *log.lock().unwrap())).collect();
        published.push(self.publish_last(round));
        online.iter().for_each(|running| wait_for(&published, |missing| running.strike(missing)));
        wait_for(&published, |missing| members.iter().for_each(|running| running.strike(missing)));
        gate.end();
        (self.online, self.members) = (join_all(online), join_all(members));
        self.drain(&published);
        wait_for(&published, |missing| self.target.strike(missing));
        let mut inboxes: Vec<_> =
            self.online.iter().chain(&self.offline).map(Subscriber::empty_inbox).collect();
        inboxes.push(Inbox::of_group(self.members.iter().map(Subscriber::empty_inbox)));
        self.judge(round, &History { published, inboxes, requests: self.target.take() });
    }

    fn fork_rng(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.rng.random())
    }

    /// Lets the clients in for so many milliseconds, kills, and starts again, for nobody yet.
    fn kill_after(&mut self, millis: std::ops::Range<u64>, gate: &Gate) {
        gate.open(self.broker.address);
        std::thread::sleep(Duration::from_millis(self.rng.random_range(millis)));
        gate.close();
        self.broker.kill_and_restart();
        gate.all_wait();
    }

    /// A message after which nothing of this round comes any more.
    fn publish_last(&self, round: usize) -> Published {
        let mut wire = Wire::connect(self.broker.address, &Terms::passing("last")).unwrap();
        let payload = format!("r{round}.last");
        wire.publish(&Message::new(Qos::ExactlyOnce, "load/last", &payload).id(1));
        wire.flush().unwrap();
        assert!(matches!(wire.expect(), Event::Pubrec(1, reason) if !reason.is_error()));
        wire.pubrel(1);
        wire.disconnect();
        Published {
            source: PUBLISHERS,
            topic: "load/last".into(),
            payload,
            qos: Qos::ExactlyOnce,
            retain: false,
            acknowledged: true,
            sends: 1,
        }
    }

    /// The one that was offline comes, and the broker is killed while it reads.
    fn drain(&mut self, published: &[Published]) {
        let gate = Arc::new(Gate::default());
        let offline = spawn_all(&mut self.offline, &gate);
        for _ in 0..DRAIN_KILLS {
            self.kill_after(20..150, &gate);
        }
        gate.open(self.broker.address);
        offline.iter().for_each(|running| wait_for(published, |missing| running.strike(missing)));
        gate.end();
        self.offline = join_all(offline);
    }

    fn judge(&mut self, round: usize, history: &History) {
        let violations = history.violations(&mut self.keys);
        let shown: Vec<_> = violations.iter().take(20).map(String::as_str).collect();
        let (seed, count) = (self.seed, violations.len());
        assert!(count == 0, "seed {seed}, round {round}, {count} violations:\n{}", shown.join("\n"));
        let acknowledged = history.published.iter().filter(|published| published.acknowledged).count();
        assert_eq!(acknowledged, history.published.len(), "every exchange was completed");
        self.totals.acknowledged += acknowledged;
        self.totals.resent += history.published.iter().filter(|published| published.sends > 1).count();
        self.totals.received += history.inboxes.iter().map(|inbox| inbox.received.len()).sum::<usize>();
        self.totals.posted += history.requests.len();
    }

    /// Looks at the retained messages while nobody publishes.
    fn check_kept(&mut self, logs: &[publisher::Log]) {
        let allowed = self.allowed(logs);
        let found = self.read_kept(&allowed);
        for (topic, allowed) in &allowed {
            let found = found.get(topic).map_or("", String::as_str);
            let seed = self.seed;
            assert!(
                allowed.iter().any(|value| value == found),
                "seed {seed}, {topic}: {found:?} is not in {allowed:?}"
            );
        }
    }

    fn allowed(&self, logs: &[publisher::Log]) -> Kept {
        let mut allowed = self.kept.clone();
        for log in logs {
            for published in log.lock().unwrap().iter().filter(|published| published.retain) {
                let values = allowed.entry(published.topic.clone()).or_insert_with(|| vec![String::new()]);
                if published.acknowledged {
                    values.clear();
                }
                values.push(published.payload.clone());
            }
        }
        allowed
    }

    /// By topic, what there is. Waits for what has to be there, and a moment for what has not.
    fn read_kept(&self, allowed: &Kept) -> HashMap<String, String> {
        let mut wire = Wire::connect(self.broker.address, &Terms::passing("reader")).unwrap();
        wire.subscribe("keep/#", Qos::AtMostOnce);
        wire.flush().unwrap();
        let mut found = HashMap::new();
        loop {
            let is_owed = |(topic, values): (&String, &Vec<String>)| {
                !found.contains_key(topic) && !values.contains(&String::new())
            };
            let wait = if allowed.iter().any(is_owed) { PATIENCE / 4 } else { Duration::from_millis(20) };
            match wire.next(wait).unwrap() {
                Some(Event::Publish(message)) => drop(found.insert(message.topic, message.payload)),
                Some(_) => {}
                None => break,
            }
        }
        wire.disconnect();
        found
    }
}

/// Waits until all of it was struck out. What is missing in the end, the history tells.
fn wait_for(published: &[Published], strike: impl Fn(&mut HashSet<&str>)) {
    let acknowledged = published.iter().filter(|published| published.acknowledged && !published.retain);
    let mut missing: HashSet<_> = acknowledged.map(|published| published.payload.as_str()).collect();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() && Instant::now() < deadline {
        strike(&mut missing);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn spawn_all(subscribers: &mut Vec<Subscriber>, gate: &Arc<Gate>) -> Vec<Running> {
    subscribers.drain(..).map(|subscriber| subscriber.spawn(gate)).collect()
}

fn join_all(running: Vec<Running>) -> Vec<Subscriber> {
    running.into_iter().map(|running| join(running.thread)).collect()
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
