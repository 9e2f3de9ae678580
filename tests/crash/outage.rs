//! A target that is down for a long time under load, with kills of the broker in between.
//!
//! `CAUSEWAY_OUTAGE` says how long it is down: some seconds without a word, "10m" for an evening. A third of that
//! it refuses connections, a third it does not answer, a third it answers 503.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use causeway::codec::Qos;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::broker::Broker;
use crate::gate::{Gate, PATIENCE};
use crate::history::Published;
use crate::publisher::Publisher;
use crate::target;
use crate::wire::{Event, Message, Terms, Wire};

const PUBLISHERS: usize = 4;
/// Sixteen messages of each publisher in this time.
const PACE: Duration = Duration::from_millis(160);
/// Requests in a second, and at once after a pause.
const RATE: usize = 2000;
const BURST: usize = 100;
/// What a debug build under load may gain while messages wait.
const GROWTH_MAX: u64 = 48 << 20;
/// Probes are half a second apart; the rest is for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);
/// Lines of a broker in the log, from its start to its end.
const LINES_MAX: usize = 30;
/// Time from one kill to the next, in milliseconds.
const KILLS: std::ops::Range<u64> = 1_000..2_000;
const KILLS_OF_A_LONG_OUTAGE: std::ops::Range<u64> = 20_000..60_000;

/// How the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Every request is answered with 200.
    Up,
    /// Nobody listens.
    Refuses,
    /// Requests are read and not answered.
    Hangs,
    /// Every request is answered with 503.
    Unavailable,
}

/// A request that was answered with 200.
#[derive(Clone, Debug)]
struct Taken {
    key: String,
    body: String,
    at: Instant,
}

/// A target whose mood changes.
struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    mood: Mutex<Mood>,
    changed: Condvar,
    taken: Mutex<Vec<Taken>>,
    /// Key and body of every request that came, whatever it was answered.
    seen: Mutex<HashMap<String, String>>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            mood: Mutex::new(Mood::Up),
            changed: Condvar::new(),
            taken: Mutex::default(),
            seen: Mutex::default(),
        };
        let mut target = Self { address, shared: Arc::new(shared), listening: None };
        target.listen(listener);
        target
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.listening = Some(std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if *shared.mood.lock().unwrap() == Mood::Refuses {
                    return;
                }
                let shared = Arc::clone(&shared);
                // It ends when its connection does.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        }));
    }

    fn is_now(&mut self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
        self.shared.changed.notify_all();
        if mood == Mood::Refuses {
            // Wakes the thread that accepts, which then closes the door.
            drop(TcpStream::connect(self.address));
            self.listening.take().unwrap().join().unwrap();
        } else if self.listening.is_none() {
            self.listen(TcpListener::bind(self.address).unwrap());
        }
    }

    fn taken(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    fn route(&self, more: &str) -> String {
        format!(
            "[targets.t]\nurl = \"http://{}/in\"\ntimeout = \"500ms\"\nrate = \"{RATE}/s\"\nburst = {BURST}\n{more}\n\
             [targets.t.breaker]\nprobe_interval = \"50ms\"\nprobe_interval_max = \"500ms\"\n\
             [[routes]]\nname = \"r\"\ntopics = [\"load/#\"]\ntarget = \"t\"\n",
            self.address
        )
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (key, body) = target::read(&mut reader)?;
        let known = shared.seen.lock().unwrap().entry(key.clone()).or_insert_with(|| body.clone()).clone();
        assert_eq!(known, body, "one key, one body");
        let mut mood = shared.mood.lock().unwrap();
        while *mood == Mood::Hangs {
            mood = shared.changed.wait(mood).unwrap();
        }
        let status = match *mood {
            Mood::Up => "200 OK",
            Mood::Unavailable => "503 Service Unavailable",
            Mood::Refuses | Mood::Hangs => return Ok(()),
        };
        if *mood == Mood::Up {
            shared.taken.lock().unwrap().push(Taken { key, body, at: Instant::now() });
        }
        drop(mood);
        (&*stream).write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

/// An hour would show the same: [`KILLS`] and memory do not depend on how long it is.
#[test]
fn target_down_1h() {
    let down = std::env::var("CAUSEWAY_OUTAGE").map(|text| humantime::parse_duration(&text).unwrap());
    let kills = if down.is_ok() { KILLS_OF_A_LONG_OUTAGE } else { KILLS };
    let down = down.unwrap_or(Duration::from_secs(6));
    let mut outage = Outage::start();
    outage.run_for(Duration::from_secs(1), None);
    for mood in [Mood::Refuses, Mood::Hangs, Mood::Unavailable] {
        outage.target.is_now(mood);
        outage.run_for(down / 3, Some(kills.clone()));
    }
    let published = outage.wind_up();
    outage.catch_up(&published);
    outage.judge(&published);
}

struct Outage {
    rng: StdRng,
    target: Target,
    broker: Broker,
    gate: Arc<Gate>,
    publishers: Vec<(JoinHandle<()>, crate::publisher::Log)>,
    /// When the broker was killed.
    kills: Vec<Instant>,
    /// Bytes of memory, every now and then while the target is down.
    resident: Vec<u64>,
}

impl Outage {
    fn start() -> Self {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let target = Target::start();
        let broker = Broker::start(&target.route(""));
        let gate = Arc::new(Gate::default());
        let publishers = (0..PUBLISHERS).map(|number| {
            let rng = StdRng::seed_from_u64(rng.random());
            let publisher = Publisher::new(number, 0, rng, &gate).paced(PACE);
            let log = Arc::clone(&publisher.log);
            (publisher.spawn(), log)
        });
        let publishers = publishers.collect();
        gate.open(broker.address);
        let (kills, resident) = (Vec::new(), Vec::new());
        Self { rng, target, broker, gate, publishers, kills, resident }
    }

    /// Lets everybody work for so long, with kills of the broker after so many milliseconds each.
    fn run_for(&mut self, time: Duration, kills: Option<std::ops::Range<u64>>) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let left = end - Instant::now();
            let millis = kills.clone().map(|millis| self.rng.random_range(millis));
            let next = millis.map_or(left, Duration::from_millis);
            self.look_for(next.min(left));
            if next < left {
                self.kill();
            }
        }
    }

    /// Looks at the memory once a second, and before this time is over.
    fn look_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_secs(1)));
            if *self.target.shared.mood.lock().unwrap() != Mood::Up {
                self.resident.push(self.broker.resident());
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    fn kill(&mut self) {
        self.gate.close();
        self.broker.kill();
        self.kills.push(Instant::now());
        self.broker.check_database();
        self.broker.restart();
        self.gate.all_wait();
        self.gate.open(self.broker.address);
    }

    /// Everything that was published, when the last exchange is complete.
    fn wind_up(&mut self) -> Vec<Published> {
        self.gate.wind_up();
        let logs = self.publishers.drain(..).map(|(thread, log)| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            std::mem::take(&mut *log.lock().unwrap())
        });
        logs.flatten().filter(|published| !published.retain).collect()
    }

    /// The target is back: what has waited is sent, with one kill on the way.
    fn catch_up(&mut self, published: &[Published]) {
        let before = self.target.taken().len();
        let mut missing: HashSet<&str> = published.iter().map(|published| &*published.payload).collect();
        for taken in &self.target.taken() {
            missing.remove(&*taken.body);
        }
        let (began, backlog) = (Instant::now(), missing.len());
        self.target.is_now(Mood::Up);
        let mut killed = false;
        let deadline = began + PATIENCE + Duration::from_secs((backlog / RATE) as u64) * 4;
        let mut looked_at = before;
        while !missing.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            let taken = self.target.shared.taken.lock().unwrap();
            for taken in &taken[looked_at..] {
                missing.remove(&*taken.body);
            }
            looked_at = taken.len();
            drop(taken);
            if !killed && missing.len() < backlog / 2 {
                killed = true;
                self.kill();
            }
        }
        let lost = missing.iter().next();
        assert!(lost.is_none(), "{} of {backlog} are lost, {lost:?} among them", missing.len());
        println!("{backlog} messages had waited, and were taken in {:?}", began.elapsed());
        let noticed = self.target.taken()[before].at - began;
        assert!(noticed < NOTICED_WITHIN, "that the target is back was noticed after {noticed:?}");
        self.judge_rate(before);
    }

    /// Between two kills no more comes than the rate allows. When one bucket ends a full one begins.
    fn judge_rate(&self, before: usize) {
        let taken = &self.target.taken()[before..];
        let (first, last) = (taken[0].at, taken[taken.len() - 1].at);
        let kills = self.kills.iter().filter(|kill| **kill > first).count();
        let allowed = (kills + 1) * BURST + ((last - first).as_secs_f64() * RATE as f64) as usize;
        let rate = taken.len() as f64 / (last - first).as_secs_f64();
        println!("{} requests at {rate:.0} a second; the rate is {RATE}", taken.len());
        assert!(taken.len() <= allowed + 1, "{} requests, {allowed} allowed", taken.len());
    }

    fn judge(&self, published: &[Published]) {
        let taken = self.target.taken();
        let acknowledged = published.iter().filter(|published| published.acknowledged).count();
        assert_eq!(acknowledged, published.len(), "every exchange was completed");
        self.judge_repeats(&taken, published);
        judge_order(&taken, published);
        let (first, most) = (self.resident[0], self.resident.iter().max().unwrap());
        println!(
            "{} published, {} kills; memory {} MiB at first, {} MiB at most, {} MiB at last",
            published.len(),
            self.kills.len(),
            first >> 20,
            most >> 20,
            self.resident[self.resident.len() - 1] >> 20
        );
        assert!(*most < first + GROWTH_MAX, "memory grew from {first} to {most}");
        self.judge_log();
    }

    /// A line when the target is found down, once in the life of each process, and no line for a message.
    fn judge_log(&self) {
        let (log, lives) = (self.broker.log(), self.kills.len() + 1);
        let down = log.lines().filter(|line| line.contains("the target is down")).count();
        println!("{} lines in the log, {down} of them say that the target is down", log.lines().count());
        assert!((1..=lives).contains(&down), "{down} times in {lives} lives:\n{log}");
        assert!(log.lines().count() <= LINES_MAX * lives, "{log}");
    }

    /// A key is taken again only when the broker was killed in between, and a body has another key only when it was
    /// published again.
    fn judge_repeats(&self, taken: &[Taken], published: &[Published]) {
        let mut last: HashMap<&str, Instant> = HashMap::new();
        let mut keys: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut repeats = 0;
        for Taken { key, body, at } in taken {
            keys.entry(body).or_default().insert(key);
            if let Some(before) = last.insert(key, *at) {
                repeats += 1;
                let crashed = self.kills.iter().any(|kill| (before..*at).contains(kill));
                assert!(crashed, "{body} was taken twice, without a crash in between");
            }
        }
        for Published { payload, qos, sends, .. } in published {
            let allowed = if *qos == Qos::ExactlyOnce { 1 } else { *sends };
            assert!(
                keys[&**payload].len() <= allowed,
                "{payload}, sent {sends} times: {:?}",
                keys[&**payload]
            );
        }
        println!("{} requests were taken, {repeats} of them again after a crash", taken.len());
    }
}

/// Of each publisher and topic, messages are taken for the first time in the order in which they were published.
fn judge_order(taken: &[Taken], published: &[Published]) {
    let places: HashMap<&str, (usize, &Published)> =
        published.iter().enumerate().map(|(place, message)| (&*message.payload, (place, message))).collect();
    let mut seen = HashSet::new();
    let mut newest: HashMap<(usize, &str), usize> = HashMap::new();
    for Taken { body, .. } in taken {
        let Some((place, message)) = places.get(&**body).filter(|_| seen.insert(body)) else { continue };
        let newest = newest.entry((message.source, &message.topic)).or_insert(*place);
        assert!(*place >= *newest, "{body} was taken after a later one of its lane");
        *newest = *place;
    }
    assert!(newest.len() >= PUBLISHERS, "there were lanes");
}

/// Publishes and waits for the acknowledgement.
fn publish(broker: &Broker, payload: &str) {
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    wire.publish(&Message::new(Qos::AtLeastOnce, "load/one", payload).id(1));
    wire.flush().unwrap();
    assert!(matches!(wire.expect(), Event::Puback(1, reason) if !reason.is_error()));
    wire.disconnect();
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The broker is killed when the target has answered, and before that is on disk: the message comes once more at
/// most, with the same key and body.
#[test]
fn crash_after_2xx() {
    let target = Target::start();
    let mut broker = Broker::start(&target.route(""));
    let mut again = 0;
    for round in 0..5 {
        let body = format!("message-{round}");
        publish(&broker, &body);
        wait_for("it is taken", || target.taken().iter().any(|taken| taken.body == body));
        broker.kill_and_restart();
        let marker = format!("marker-{round}");
        publish(&broker, &marker);
        // One lane: what is sent again is sent before it.
        wait_for("the marker is taken", || target.taken().iter().any(|taken| taken.body == marker));
        let taken = target.taken();
        let of = |body: &str| taken.iter().filter(|taken| taken.body == *body).cloned().collect::<Vec<_>>();
        let keys: HashSet<_> = of(&body).into_iter().map(|taken| taken.key).collect();
        assert_eq!(keys.len(), 1, "{body}");
        assert!(of(&body).len() <= 2 && of(&marker).len() == 1, "{body}: {taken:?}");
        again += of(&body).len() - 1;
    }
    println!("{again} of 5 came again after the crash");
}

/// Attempts before and after a crash carry the same key.
#[test]
fn same_key_over_a_crash() {
    let mut target = Target::start();
    target.is_now(Mood::Unavailable);
    let mut broker = Broker::start(&target.route(""));
    publish(&broker, "message");
    wait_for("it is refused", || !target.shared.seen.lock().unwrap().is_empty());
    broker.kill_and_restart();
    target.is_now(Mood::Up);
    wait_for("it is taken", || !target.taken().is_empty());
    let seen = target.shared.seen.lock().unwrap().clone();
    assert_eq!(seen, HashMap::from([(target.taken()[0].key.clone(), "message".into())]));
}
