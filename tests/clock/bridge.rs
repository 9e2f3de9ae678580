//! Retries to an HTTP target, and a clock that jumps.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::time::Duration;

use crate::broker::{Broker, Start};
use crate::client::publish;
use crate::gate::PATIENCE;
use crate::wall_clock::WallClock;

/// A target that says 503 until it is told to say 200.
struct Target {
    address: SocketAddr,
    takes: Arc<AtomicBool>,
    /// What it was sent, and whether it took it.
    seen: Receiver<(String, bool)>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let takes = Arc::new(AtomicBool::new(false));
        let (answers, (sender, seen)) = (Arc::clone(&takes), channel());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(body) = read_request(&stream) else { continue };
                let taken = answers.load(Ordering::SeqCst);
                let status = if taken { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                // The broker may have ended meanwhile.
                let _ = (&stream).write_all(answer.as_bytes());
                if sender.send((body, taken)).is_err() {
                    return;
                }
            }
        });
        Self { address, takes, seen }
    }

    fn config(&self) -> String {
        format!(
            "[targets.shore]\nurl = \"http://{}/in\"\n\
             [targets.shore.retry]\ninitial = \"50ms\"\nmax = \"100ms\"\nmax_age = \"30m\"\n\
             [targets.shore.breaker]\nprobe_interval = \"50ms\"\nprobe_interval_max = \"100ms\"\n\
             [[routes]]\nname = \"out\"\ntopics = [\"out/#\"]\ntarget = \"shore\"\n",
            self.address
        )
    }

    fn expect(&self, wanted: (&str, bool)) {
        loop {
            match self.seen.recv_timeout(PATIENCE) {
                Ok((body, taken)) if (&*body, taken) == wanted => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no {wanted:?}"),
            }
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn start(clock: &WallClock, target: &Target, data: &Path) -> Broker {
    clock.with(|environment| Broker::start(&Start { environment, more: &target.config(), ..Start::on(data) }))
}

fn assert_no_dead_letter(broker: &Broker) {
    let (status, body) = broker.get("/api/v1/dead-letters");
    assert!(status == 200 && !body.contains("max_age") && !body.contains("expired"), "{status} {body}");
}

#[test]
fn a_retry_is_neither_lost_nor_given_up_when_the_clock_jumps() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start();
    let broker = start(&clock, &target, folder.path());
    publish(&broker, "out/a", "x", 200, false);
    target.expect(("x", false));
    for jump in ["+1h", "-1h", "+1h"] {
        clock.set(jump);
        std::thread::sleep(Duration::from_millis(1200));
        target.seen.try_iter().for_each(drop);
        target.expect(("x", false));
    }
    assert_no_dead_letter(&broker);
    target.takes.store(true, Ordering::SeqCst);
    target.expect(("x", true));
}

#[test]
fn a_backlog_is_not_given_up_at_a_start_with_a_wrong_clock() {
    let Some(clock) = WallClock::new() else { return };
    for wrong in ["-56y", "+74y"] {
        clock.set("+0");
        let folder = tempfile::tempdir().unwrap();
        let target = Target::start();
        let broker = start(&clock, &target, folder.path());
        publish(&broker, "out/a", "x", 200, false);
        target.expect(("x", false));
        drop(broker);
        clock.set(wrong);
        let broker = start(&clock, &target, folder.path());
        target.seen.try_iter().for_each(drop);
        target.expect(("x", false));
        std::thread::sleep(Duration::from_millis(1200));
        assert_no_dead_letter(&broker);
        target.takes.store(true, Ordering::SeqCst);
        target.expect(("x", true));
    }
}
