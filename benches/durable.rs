//! What the promise costs: the broker itself under durable load, each figure beside the plain loop that any
//! store would need at least.
//!
//! `cargo bench --bench durable [-- --large] [DIRECTORY]`. The directory names the disk (the build's own by
//! default). `--large` makes the backlog of the restart ten times as long: ten million deliveries, one
//! gigabyte. Everything is on loopback, at free ports, and ends with the run.

mod broker;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker::{Broker, mib, number};

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("t");

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let is_large = arguments.iter().any(|argument| argument == "--large");
    let named = arguments.iter().find(|argument| !argument.starts_with('-'));
    let parent = named.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    println!("on the disk of {}; load and broker on the same cores\n", parent.display());
    let bench = Bench { parent };
    bench.offline_subscriber();
    bench.connected_subscriber();
    bench.one_at_a_time();
    bench.rare_commits();
    bench.fan_out();
    bench.restart(if is_large { 10_000 } else { 1_000 });
}

struct Bench {
    parent: PathBuf,
}

impl Bench {
    /// 64 publishers, and a durable subscriber that is away; then it comes back.
    fn offline_subscriber(&self) {
        const MESSAGES: u64 = 1_000_000;
        let broker = Broker::start(&self.parent, "");
        broker.subscribe("off", 1, "q/#");
        let count = MESSAGES.to_string();
        let load = ["--clients", "64", "-t", "q/{i}", "-q", "1", "-w", "100", "-s", "200", "-n", &count];
        let told = broker.load("pub", &load);
        let (rate, commits) = (number(&told, "/publish/per_second"), broker.commits());
        let batch = (MESSAGES as f64 / commits).max(1.0) as usize;
        let plain = self.append(batch * 240);
        println!("durable QoS 1, 64 publishers, window 100, 200 B, subscriber away:");
        println!(
            "  {rate:.0} a second, {:.2} us CPU and {:.0} B written each",
            number(&told, "/broker/cpu_us_per_message"),
            number(&told, "/broker/written_bytes_per_message")
        );
        let p99 = number(&told, "/publish/latency/p99_us") / 1e3;
        let commit = number(&told, "/publish/seconds") * 1e3 / commits;
        println!("  PUBACK p99 {p99:.1} ms: {:.1} commits of {batch} messages", p99 / commit);
        println!("  append and fdatasync of as much: {:.0} a second", plain * batch as f64);
        println!("  memory with {MESSAGES} queued: {:.0} MiB", mib(number(&told, "/broker/rss_bytes")));
        let back =
            broker.load("sub", &["--durable", "--client-id", "off", "-t", "q/#", "-q", "1", "-n", &count]);
        let drained = number(&back, "/receive/per_second");
        let live = broker.load("pair", &["--pairs", "1", "-q", "1", "-s", "200", "-d", "3s"]);
        let live = number(&live, "/receive/per_second");
        println!("  drained at {drained:.0} a second, {:.0} % of one live pair\n", drained / live * 100.0);
    }

    /// The same with a subscriber that is there and acknowledges, with a clean session and with a durable one.
    fn connected_subscriber(&self) {
        let rate = |durable: bool| {
            let broker = Broker::start(&self.parent, "");
            let mut subscribe =
                broker.command("sub", &["-t", "c/#", "-q", "1", "-d", "6s", "--client-id", "on"]);
            if durable {
                subscribe.arg("--durable");
            }
            let mut subscriber = subscribe.stdout(Stdio::null()).spawn().expect("the bench");
            broker.wait_for_metric("causeway_connections", 1.0);
            let load = ["--clients", "64", "-t", "c/{i}", "-q", "1", "-w", "100", "-s", "200", "-d", "4s"];
            let told = broker.load("pub", &load);
            subscriber.wait().expect("the bench ends");
            let written = number(&told, "/broker/written_bytes_per_message");
            (number(&told, "/publish/per_second"), number(&told, "/broker/cpu_us_per_message"), written)
        };
        println!("the same with a connected, acknowledging subscriber, three times in turn:");
        for _ in 0..3 {
            let ((clean, clean_cpu, _), (durable, cpu, written)) = (rate(false), rate(true));
            println!(
                "  clean {clean:.0} a second, {clean_cpu:.2} us; durable {durable:.0}, {cpu:.2} us, {written:.0} B \
                 written each: {:.0} %",
                durable / clean * 100.0
            );
        }
        println!();
    }

    /// One publisher that waits for each PUBACK, and a bare commit of the database of the same size.
    fn one_at_a_time(&self) {
        let broker = Broker::start(&self.parent, "");
        broker.subscribe("off", 1, "q");
        let told = broker.load("pub", &["-t", "q", "-q", "1", "-w", "1", "-s", "200", "-n", "3000"]);
        let puback = number(&told, "/publish/latency/p50_us");
        let (bare, sync) = (self.bare_commits(), 1e6 / self.append(240));
        println!("one message at a time, 200 B, subscriber away:");
        println!(
            "  PUBACK p50 {puback:.0} us, {:.0} B written each; bare redb commit {bare:.0} us: {:.2} times; append and \
             fdatasync {sync:.0} us\n",
            number(&told, "/broker/written_bytes_per_message"),
            puback / bare
        );
    }

    fn rare_commits(&self) {
        let broker = Broker::start(&self.parent, "commit_interval = \"1s\"");
        broker.subscribe("off", 1, "q");
        let told = broker.load("pub", &["-t", "q", "-q", "1", "-s", "200", "-r", "10", "-d", "20s"]);
        let written = number(&told, "/broker/written_bytes_per_message");
        println!(
            "10 messages a second with store.commit_interval = \"1s\":\n  {written:.0} B written each\n"
        );
    }

    fn fan_out(&self) {
        let broker = Broker::start(&self.parent, "");
        broker.subscribe("fan", 1_000, "f/#");
        let load = ["--clients", "64", "-t", "f/{i}", "-q", "1", "-w", "100", "-s", "200", "-n", "20000"];
        let told = broker.load("pub", &load);
        println!("fan-out to 1,000 durable sessions that are away, 200 B:");
        println!(
            "  {:.0} messages a second, {:.0} B written each\n",
            number(&told, "/publish/per_second"),
            number(&told, "/broker/written_bytes_per_message")
        );
    }

    /// A thousand messages for each of so many sessions, SIGKILL, and a start.
    fn restart(&self, sessions: u32) {
        let mut broker = Broker::start(&self.parent, "");
        // In portions, so that the limit of open files does not matter.
        for from in (0..sessions).step_by(500) {
            broker.subscribe(&format!("b{from}-"), 500.min(sessions - from), "s/{i}");
        }
        let (topics, count) = (500.min(sessions).to_string(), (1_000 * 500.min(sessions)).to_string());
        let load =
            ["--clients", "64", "-t", "s/{t}", "--topics", &topics, "-q", "1", "-s", "1500", "-n", &count];
        broker.load("pub", &load);
        broker.kill();
        let before = Instant::now();
        broker.start_again();
        let mut stream = broker.connect_as(b"b0-s7");
        let accepted = before.elapsed();
        let mut bytes = [0; 64];
        stream.read_exact(&mut bytes).expect("the first message");
        let file = std::fs::metadata(broker.directory().join("data/causeway.redb")).expect("a database");
        println!("start after SIGKILL, {} deliveries pending for {sessions} sessions:", 1_000 * sessions);
        println!(
            "  {:.0} MiB of database; CONNACK after {:.0} ms, the first message of a backlog after {:.0} ms; {:.0} MiB of memory",
            mib(file.len() as f64),
            accepted.as_secs_f64() * 1e3,
            before.elapsed().as_secs_f64() * 1e3,
            mib(broker.resident())
        );
    }

    /// Appends so many bytes, each time with a sync: how often that goes in a second.
    fn append(&self, bytes: usize) -> f64 {
        let file = tempfile::NamedTempFile::new_in(&self.parent).expect("a file");
        let (mut file, bytes) = (file.as_file(), vec![7; bytes]);
        let (start, mut syncs) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(2) {
            file.write_all(&bytes).expect("room");
            file.sync_data().expect("a sync");
            syncs += 1;
        }
        f64::from(syncs) / start.elapsed().as_secs_f64()
    }

    /// The median time of a commit of one row, with quick repair, in microseconds.
    fn bare_commits(&self) -> f64 {
        let directory = tempfile::tempdir_in(&self.parent).expect("a directory");
        let database = redb::Database::create(directory.path().join("bare")).expect("a database");
        let mut times: Vec<_> = (0..1_500u64)
            .map(|n| {
                let start = Instant::now();
                let mut txn = database.begin_write().expect("a transaction");
                txn.set_quick_repair(true);
                txn.open_table(TABLE).expect("a table").insert(n, [7; 240].as_slice()).expect("room");
                txn.commit().expect("a commit");
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}
