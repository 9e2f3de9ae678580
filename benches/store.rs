//! What a durable message costs: four threads with a hundred publications each on their way, sixteen times.
//!
//! `cargo bench --bench store [-- DIRECTORY]`. The directory names the disk (the build's own by default).
//! Beside it the least that any store could do on that disk: append to a file, then `fdatasync`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::codec::Qos;
use causeway::record::{
    Change, Epoch, Leg, Lsn, Message, MessageParts, Publication, RecipientNo, Record, SessionOpened,
    SubscriptionIds, UnixMillis,
};
use causeway::store::{Bell, Store, StoreSettings};

const THREADS: usize = 4;
const PAYLOAD: usize = 200;
const RUN: Duration = Duration::from_secs(4);

fn main() {
    let named = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let parent = named.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    println!(
        "{THREADS} threads, payloads of {PAYLOAD} bytes for one offline session, in {}",
        parent.display()
    );
    for outstanding in [1, 100, 1_600] {
        let directory = tempfile::tempdir_in(&parent).expect("a directory to write in");
        store(directory.path(), outstanding);
    }
    for batch in [1, 100, 1_600] {
        let directory = tempfile::tempdir_in(&parent).expect("a directory to write in");
        append(&directory.path().join("log"), batch * THREADS);
    }
}

/// Each thread waits for what it has submitted whenever `outstanding` are on their way.
fn store(directory: &Path, outstanding: usize) {
    let settings = StoreSettings {
        cache_size: 64 << 20,
        commit_interval: Duration::ZERO,
        batch_bytes_max: 4 << 20,
        queue_bytes_max: 16 << 20,
        compact_at_start: false,
        recent_max: StoreSettings::RECENT_MAX,
    };
    let (store, _) = Store::open(directory, &settings).expect("a store");
    let (recipient, backlog) = store.new_recipient();
    wait(&store, submit(&store, Record::of([opened(recipient)])));
    let (before, start) = (Usage::now(), Instant::now());
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || submit_until(&store, recipient, outstanding, start + RUN))
        })
        .collect();
    let waits: u64 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    let (took, used) = (start.elapsed(), before.until_now());
    let name = format!("store, {outstanding} outstanding each");
    report(&name, backlog.count(), took, &used);
    println!("    {:.0} waits/s for a commit; {} bytes kept", per_second(waits, took), backlog.bytes());
    store.close();
    drop(store);
    let start = Instant::now();
    let (store, recovered) = Store::open(directory, &settings).expect("a store");
    println!(
        "    {:.0} ms to start with {} messages",
        start.elapsed().as_secs_f64() * 1e3,
        recovered.messages
    );
    store.close();
}

fn submit_until(store: &Store, recipient: RecipientNo, outstanding: usize, end: Instant) -> u64 {
    let mut scratch = Vec::new();
    let mut waits = 0;
    while Instant::now() < end {
        let last = (0..outstanding).map(|_| submit(store, publication(recipient, &mut scratch))).last();
        wait(store, last.unwrap_or_default());
        waits += 1;
    }
    waits
}

fn submit(store: &Store, record: Record) -> Lsn {
    store.submit(record).expect("a store that works").lsn
}

/// Appends batches of messages, each with a sync of its own.
fn append(path: &Path, batch: usize) {
    let mut file = File::create(path).expect("a file");
    let bytes = vec![7; (PAYLOAD + 40) * batch];
    let (before, start) = (Usage::now(), Instant::now());
    let mut syncs = 0;
    while start.elapsed() < RUN / 2 {
        file.write_all(&bytes).expect("room");
        file.sync_data().expect("a sync");
        syncs += 1;
    }
    let (took, used) = (start.elapsed(), before.until_now());
    report(&format!("append and fdatasync, {batch} messages each"), syncs * batch as u64, took, &used);
    println!("    {:.0} syncs/s", per_second(syncs, took));
}

fn report(name: &str, messages: u64, took: Duration, used: &Usage) {
    println!(
        "{name}: {:.0} messages/s, {:.2} us of CPU and {} bytes written each",
        per_second(messages, took),
        used.cpu.as_secs_f64() * 1e6 / messages as f64,
        used.written / messages.max(1),
    );
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn publication(recipient: RecipientNo, scratch: &mut Vec<u8>) -> Record {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1_700_000_000_000),
        expires_at: UnixMillis::NEVER,
        topic: "site/7/device/12/temperature",
        properties: &[],
        payload: &[7; PAYLOAD],
        publisher: "device-12",
    };
    let leg =
        Leg { recipient, qos: Qos::AtLeastOnce, retain: false, subscription_ids: SubscriptionIds::new() };
    let message = Message::new(&parts, scratch);
    let publication = Publication { message, legs: [leg].into(), inbound: None, retain: false, origin: None };
    Record { publication: Some(publication), changes: Vec::new() }
}

fn opened(recipient: RecipientNo) -> Change {
    Change::SessionOpened(Box::new(SessionOpened {
        recipient,
        epoch: Epoch(1),
        client_id: "offline".into(),
        user_name: None,
        expiry: u32::MAX,
        will: None,
        at: UnixMillis(1_700_000_000_000),
    }))
}

fn wait(store: &Store, lsn: Lsn) {
    let bell = Arc::new(Bell::default());
    let thread = std::thread::current();
    let waker = Arc::new(Unpark(thread)).into();
    store.ring_at(lsn, &bell);
    while store.watermark() < lsn {
        assert!(!store.has_failed());
        if !bell.poll_heard(&waker) {
            std::thread::park();
        }
    }
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What this process has used so far.
struct Usage {
    cpu: Duration,
    written: u64,
}

impl Usage {
    /// Zero where there is no `/proc`.
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in brackets may have spaces; user and system time are the 14th and 15th field.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
        Self { cpu: Duration::from_millis(ticks * 10), written: written.unwrap_or_default() }
    }

    fn until_now(&self) -> Self {
        let now = Self::now();
        Self { cpu: now.cpu - self.cpu, written: now.written - self.written }
    }
}
