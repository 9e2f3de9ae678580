//! What a route carries: events posted to a local target, beside what the same HTTP client reaches in a plain loop
//! without a broker, and what MQTT clients notice of targets that are slow or dead.
//!
//! `cargo bench --bench bridge [-- single] [batched] [latency] [isolation] [memory]`. Load, broker, target and plain
//! loop are processes of their own on the same cores, on loopback, at free ports; the disk is that of the build.

mod broker;

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker::{Broker, mib, number};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(120);
const CONCURRENCY: usize = 32;
const PAYLOAD: usize = 200;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--target", delay] => return serve_target(delay.parse().expect("milliseconds")),
        ["--plain", url, count, bytes] => {
            return plain_loop(url, count.parse().expect("a number"), bytes.parse().expect("a number"));
        }
        _ => {}
    }
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    println!("on the disk of {}; load, broker and target on the same cores\n", parent.display());
    let bench = Bench { parent };
    let parts: [(&str, fn(&Bench)); 5] = [
        ("single", Bench::one_by_one),
        ("batched", Bench::batched),
        ("latency", Bench::added_latency),
        ("isolation", Bench::isolation),
        ("memory", Bench::memory),
    ];
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in parts {
        if named.is_empty() || named.iter().any(|named| *named == name) {
            part(&bench);
        }
    }
}

struct Bench {
    parent: PathBuf,
}

/// An HTTP server in a process of its own that answers 200 and counts lines.
struct Target {
    process: Child,
    address: SocketAddr,
}

impl Bench {
    /// Each event a request, the order of each topic kept.
    fn one_by_one(&self) {
        println!(
            "events of {PAYLOAD} B, a request each, order by topic, QoS 1 on disk before PUBACK, three times:"
        );
        for _ in 0..3 {
            let plain = Target::start(0).plain(60_000, PAYLOAD);
            let (posted, told) = self.carry(120_000, "");
            println!(
                "  {posted:.0} a second, {told:.1} us CPU of the broker each; plain loop {plain:.0}: {:.0} %",
                posted / plain * 100.0
            );
        }
        println!();
    }

    /// A hundred events in each request.
    fn batched(&self) {
        println!("the same, batched by 100:");
        for _ in 0..3 {
            let plain = Target::start(0).plain(6_000, 100 * (PAYLOAD + 120)) * 100.0;
            let batch = "[routes.request]\nbody = \"json\"\n[routes.batch]\ncount = 100\nlinger = \"5ms\"\n";
            let (posted, told) = self.carry(600_000, batch);
            println!(
                "  {posted:.0} events a second, {told:.1} us CPU of the broker each; plain loop with as many bytes \
                 {plain:.0}"
            );
        }
        println!();
    }

    /// Publishes so many events and gives how many a second arrived, from the first publish to the last event.
    fn carry(&self, events: u64, route: &str) -> (f64, f64) {
        let target = Target::start(0);
        let broker = self.routed(&[(target.address, "e/#", route)]);
        let (before, cpu) = (Instant::now(), broker.cpu());
        let count = events.to_string();
        let load =
            ["--clients", "16", "-t", "e/{i}/{t}", "--topics", "16", "-q", "1", "-w", "100", "-n", &count];
        broker.load("pub", &[&load[..], &["-s", &PAYLOAD.to_string()]].concat());
        target.wait_for(events);
        let seconds = before.elapsed().as_secs_f64();
        (events as f64 / seconds, (broker.cpu() - cpu) * 1e6 / events as f64)
    }

    /// From PUBACK to the arrival of the request at the target, with nothing else to do.
    fn added_latency(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let broker = self.routed(&[(listener.local_addr().expect("an address"), "l/#", "")]);
        let (told, arrivals) = std::sync::mpsc::channel();
        let target = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                let arrived = Instant::now();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("it is read");
                if told.send(arrived).is_err() {
                    return;
                }
            }
        });
        let mut client = broker.connect_clean();
        let mut times = Vec::new();
        for number in 0..500u16 {
            let id = number + 1;
            let [high, low] = id.to_be_bytes();
            let sent = Instant::now();
            client.write_all(&[0x32, 8, 0, 3, b'l', b'/', b'a', high, low, b'x']).expect("it is read");
            let mut puback = [0; 4];
            client.read_exact(&mut puback).expect("PUBACK");
            let committed = Instant::now();
            let arrived = arrivals.recv_timeout(PATIENCE).expect("it is posted");
            times.push((arrived.saturating_duration_since(committed), committed - sent));
            // Idle is more than the pause between two messages of a load.
            thread::sleep(Duration::from_millis(2));
        }
        times.sort();
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("one message at a time, idle broker:");
        println!(
            "  from PUBACK to the request at the target {:.2} ms, p99 {:.2} ms; PUBACK itself {:.2} ms\n",
            median.0.as_secs_f64() * 1e3,
            p99.0.as_secs_f64() * 1e3,
            median.1.as_secs_f64() * 1e3
        );
        drop((broker, arrivals));
        // Its connection is gone with the broker.
        let _ = target.join();
    }

    /// What subscribers and publishers see of a target that is dead and of one that takes five seconds.
    fn isolation(&self) {
        let (well, other, slow) = (Target::start(0), Target::start(0), Target::start(5_000));
        let nobody = free_address();
        println!("MQTT QoS 1, 2,000 messages a second that two routes take, three times in turn:");
        let measured = |targets: [SocketAddr; 2]| {
            let broker = self.routed(&targets.map(|address| (address, "bench/#", "")));
            let load = ["--pairs", "8", "-q", "1", "-s", "200", "-r", "2000", "-d", "5s"];
            let told = broker.load("pair", &load);
            (number(&told, "/receive/latency/p99_us"), number(&told, "/publish/latency/p99_us"))
        };
        for _ in 0..3 {
            let (healthy, healthy_ack) = measured([well.address, other.address]);
            let (ill, ill_ack) = measured([nobody, slow.address]);
            println!(
                "  both well: p99 {healthy:.0} us to the subscriber, {healthy_ack:.0} us to PUBACK; one dead, one \
                 slow: {ill:.0} us ({:.2} times), {ill_ack:.0} us ({:.2} times)",
                ill / healthy,
                ill_ack / healthy_ack
            );
        }
        println!();
    }

    fn memory(&self) {
        const MESSAGES: u64 = 1_000_000;
        let broker = self.routed(&[(free_address(), "m/#", "")]);
        let before = broker.resident();
        let count = MESSAGES.to_string();
        let load = ["--clients", "64", "-t", "m/{i}", "-q", "1", "-w", "100", "-s", "200", "-n", &count];
        let told = broker.load("pub", &load);
        broker.wait_for_metric("causeway_bridge_outbox_messages{route=\"r0\"}", MESSAGES as f64);
        println!("{MESSAGES} messages for a target that is dead:");
        println!(
            "  {:.0} MiB of memory, {:.0} MiB before; published at {:.0} a second",
            mib(broker.resident()),
            mib(before),
            number(&told, "/publish/per_second")
        );
    }

    /// A broker with a route for each of these: where it leads, what it takes, and what else it says.
    fn routed(&self, routes: &[(SocketAddr, &str, &str)]) -> Broker {
        let sections = routes.iter().enumerate().map(|(number, (address, topics, more))| {
            format!(
                "[targets.t{number}]\nurl = \"http://{address}/\"\nconcurrency = {CONCURRENCY}\n\
                 [[routes]]\nname = \"r{number}\"\ntopics = [\"{topics}\"]\ntarget = \"t{number}\"\n{more}"
            )
        });
        Broker::start(&self.parent, &sections.collect::<String>())
    }
}

impl Target {
    /// One that answers after so many milliseconds.
    fn start(delay: u64) -> Self {
        let mut command = this_program();
        command.args(["--target", &delay.to_string()]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this program");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        Self { process, address: line.trim().parse().expect("an address") }
    }

    /// Events a second that a plain loop posts here.
    fn plain(&self, requests: u64, bytes: usize) -> f64 {
        let url = format!("http://{}/", self.address);
        let mut command = this_program();
        command.args(["--plain", &url, &requests.to_string(), &bytes.to_string()]);
        let output = command.output().expect("this program");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
    }

    fn wait_for(&self, events: u64) {
        let start = Instant::now();
        while self.count() < events {
            assert!(start.elapsed() < PATIENCE, "{} of {events} came", self.count());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn count(&self) -> u64 {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.rsplit("\r\n").next().and_then(|count| count.parse().ok()).expect("a number")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().expect("a path"))
}

/// An address that nobody listens at.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Counts what is posted: lines of a body that has some, else bodies. A GET is answered with the count.
fn serve_target(delay: u64) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        let count = Arc::new(AtomicU64::new(0));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let count = Arc::clone(&count);
            let service = service_fn(move |request: Request<Incoming>| {
                let count = Arc::clone(&count);
                async move {
                    let is_get = request.method() == http::Method::GET;
                    let body = request.into_body().collect().await.map(|body| body.to_bytes());
                    let lines = body.map_or(0, |body| memchr::memchr_iter(b'\n', &body).count().max(1));
                    if is_get {
                        let count = count.load(Ordering::Relaxed).to_string();
                        return Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(count))));
                    }
                    count.fetch_add(lines as u64, Ordering::Relaxed);
                    if delay > 0 {
                        tokio::time::sleep(Duration::from_millis(delay)).await;
                    }
                    Ok(Response::new(Full::default()))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
}

/// As many requests at once as the route makes, one after the other each; prints how many a second.
fn plain_loop(url: &str, requests: u64, bytes: usize) {
    runtime().block_on(async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let (body, left) = (Bytes::from(vec![b'x'; bytes]), Arc::new(AtomicU64::new(requests)));
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CONCURRENCY {
            let (client, url, body, left) = (client.clone(), url.to_owned(), body.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                let take = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    let request = Request::post(&url).body(Full::new(body.clone())).expect("a request");
                    let answer = client.request(request).await.expect("an answer");
                    answer.into_body().collect().await.expect("its body");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        println!("{:.0}", requests as f64 / start.elapsed().as_secs_f64());
    });
}
