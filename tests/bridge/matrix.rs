//! What each way for a target to go wrong means for a message: the table of docs/http-routes.md, over the whole
//! bridge. Beside the target that goes wrong there is always one that does not, which has to get everything.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use causeway::bridge::BreakerState;
use causeway::codec::Qos;
use causeway::config::{Order, TargetConfig};
use causeway::record::{AttemptOutcome, DeadLetterReason};
use flate2::{Compression, write::GzEncoder};
use tokio::net::TcpListener;

use crate::faults::{At, Fault, Faulty, Unaccepted};
use crate::world::{NOW, Server, World, config, eventually, route, target};

const BRIEFLY: Duration = Duration::from_millis(100);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Settled,
    /// At once.
    DeadLetter,
    /// Tried again, and then a dead letter.
    Spent,
    /// Kept until the target is well.
    Waits,
}

use Fate::{DeadLetter, Settled, Spent, Waits};

/// A world with a route to this target and one to a target that is well.
struct Pair {
    world: World,
    well: Server,
}

impl Pair {
    async fn new(mut target: TargetConfig, well: Server) -> Self {
        target.retry.attempts = 2;
        let mut config = config(target);
        config.targets.insert("well".into(), crate::world::target(&well.url));
        config.routes.push(route("other", "plant/#", "well"));
        config.routes[0].order = Order::None;
        Self { world: World::new(&config).await, well }
    }

    /// Publishes a message, and waits until it has met its fate and the other target has it.
    async fn meet(&self, fate: Fate, what: &str) {
        self.world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
        let state = || self.world.bridge.states().remove(0);
        let letters = || self.world.broker.store.dead_letters().0;
        match fate {
            Settled => eventually(what, || state().queued_messages == 0).await,
            DeadLetter | Spent => eventually(what, || letters() == 1).await,
            Waits => eventually(what, || state().breaker != BreakerState::Closed).await,
        }
        assert_eq!(letters(), u64::from(matches!(fate, DeadLetter | Spent)), "{what}");
        assert_eq!(state().queued_messages, u64::from(fate == Waits), "{what}");
        if let DeadLetter | Spent = fate {
            let letter = self.world.dead_letters(1).await.remove(0).letter;
            let attempts = letter.attempts.unwrap();
            let (reason, count) = match fate {
                Spent => (DeadLetterReason::AttemptsExhausted, 2),
                _ => (DeadLetterReason::Rejected, 1),
            };
            assert_eq!((letter.reason, attempts.count), (reason, count), "{what}");
            assert_eq!(state().breaker, BreakerState::Closed, "{what}: a target that answers is not down");
        }
        eventually("the other target has it", || self.well.count() == 1).await;
    }
}

async fn expect(fault: Fault, fate: Fate) {
    let faulty = Faulty::new(fault.clone()).await;
    let mut target = target(&faulty.url());
    let takes_long = matches!(fault, Fault::Hang(_) | Fault::Drip(_));
    if takes_long {
        target.timeout = BRIEFLY;
    }
    let pair = Pair::new(target, Server::answering(200).await).await;
    pair.meet(fate, &format!("{fault:?}: {fate:?}")).await;
    // On a machine that is busy the time can be over before the status is there.
    if fate == Settled && !takes_long {
        assert_eq!(faulty.count(), 1, "{fault:?}");
    }
    if fate == Waits {
        faulty.set(Fault::None);
        pair.world.nothing_owed().await;
        assert_eq!(faulty.bodies().last().unwrap(), "m", "nothing is lost: {fault:?}");
    }
}

#[tokio::test]
async fn retry_matrix_of_statuses() {
    for (status, fate) in [
        (200, Settled),
        (201, Settled),
        (204, Settled),
        (301, DeadLetter),
        (400, DeadLetter),
        (401, DeadLetter),
        (403, DeadLetter),
        (404, Spent),
        (408, Spent),
        (409, Spent),
        (410, DeadLetter),
        (413, DeadLetter),
        (429, Waits),
        (500, Spent),
        (501, DeadLetter),
        (502, Waits),
        (503, Waits),
        (504, Waits),
    ] {
        expect(Fault::Status(status), fate).await;
    }
}

#[tokio::test]
async fn retry_matrix_of_hanging() {
    for at in [At::Connection, At::Answer, At::Headers] {
        expect(Fault::Hang(at), Waits).await;
    }
    expect(Fault::Drip(At::Headers), Waits).await;
    // The status was said: what it says of the message counts.
    expect(Fault::Hang(At::Body), Settled).await;
    expect(Fault::Drip(At::Body), Settled).await;
}

#[tokio::test]
async fn retry_matrix_of_connections_that_break() {
    for at in [At::Connection, At::Answer, At::Headers] {
        expect(Fault::Reset(at), Waits).await;
        expect(Fault::End(at), Waits).await;
    }
    expect(Fault::Reset(At::Body), Settled).await;
    expect(Fault::End(At::Body), Settled).await;
}

#[tokio::test]
async fn retry_matrix_of_answers_that_are_wrong() {
    let bytes = |text: &str| Fault::Bytes(text.into());
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\0\u{1}\u{2}",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nna me: x\r\n\r\n",
    ] {
        expect(bytes(garbage), Waits).await;
    }
    expect(Fault::Flood(b"HTTP/1.1 200 OK\r\nx-endless: ".to_vec()), Waits).await;
    // Answers that are none yet, without end.
    expect(bytes(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000)), Waits).await;
    // Nobody asked for another protocol.
    expect(bytes("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), DeadLetter).await;
    // A body that is not as long as it says, or not in the chunks that it says, comes after the status.
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nold",
    ] {
        expect(bytes(answer), Settled).await;
    }
}

/// Waits for what a target that cannot be connected to does to a message, and what is said of it.
async fn waits(target: TargetConfig, said: &str) -> Pair {
    let pair = Pair::new(target, Server::answering(200).await).await;
    pair.meet(Waits, said).await;
    let error = pair.world.bridge.states().remove(0).last_error.unwrap().error;
    assert!(error.contains(said), "{error}");
    pair
}

#[tokio::test]
async fn retry_matrix_of_targets_that_are_not_reached() {
    // RFC 6761 keeps `.invalid` for names that never resolve.
    waits(target("http://target.invalid/in"), "cannot be resolved").await;

    let (faulty, _) = Faulty::with_tls(Fault::None).await;
    let (_, other_authority) = Faulty::with_tls(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut distrusting = target(&format!("https://{}/in", faulty.address));
    distrusting.tls.ca_file = Some(folder.path().join("ca.pem"));
    std::fs::write(folder.path().join("ca.pem"), other_authority).unwrap();
    waits(distrusting, "TLS handshake failed").await;
    assert_eq!(faulty.count(), 0);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hanging = target(&format!("https://{}/in", listener.local_addr().unwrap()));
    hanging.connect_timeout = BRIEFLY;
    hanging.tls.ca_file = Some(folder.path().join("ca.pem"));
    waits(hanging, "no connection within 100ms").await;

    let unaccepted = Unaccepted::new().await;
    let mut unreached = target(&unaccepted.url());
    unreached.connect_timeout = Duration::from_millis(500);
    let pair = waits(unreached, "no connection within 500ms").await;
    let faulty = unaccepted.accept();
    pair.world.nothing_owed().await;
    assert_eq!(faulty.bodies(), ["m"]);
}

#[tokio::test]
async fn a_target_with_its_own_authority_is_well() {
    let (faulty, authority) = Faulty::with_tls(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut target = target(&format!("https://{}/in", faulty.address));
    target.tls.ca_file = Some(folder.path().join("ca.pem"));
    std::fs::write(folder.path().join("ca.pem"), authority).unwrap();
    let pair = Pair::new(target, Server::answering(200).await).await;
    pair.meet(Settled, "it is delivered over TLS").await;
}

#[tokio::test]
async fn every_status_means_what_the_documentation_says() {
    let server = Server::new(|seen, _| crate::world::Answer::Status(seen.body.parse().unwrap())).await;
    let mut target = target(&server.url);
    target.retry.attempts = 1;
    let mut config = config(target);
    config.routes[0].order = Order::None;
    let world = World::new(&config).await;
    let mut expected = BTreeMap::new();
    // Those that also say something of the target are tried one by one, above.
    for status in (200..=599).filter(|status| !matches!(status, 401 | 403 | 410 | 429 | 502..=504)) {
        world.publish(Qos::AtLeastOnce, "plant/1", &status.to_string()).await;
        match status {
            200..=299 => {}
            404 | 408 | 409 | 425 | 500 | 506..=599 => {
                expected.insert(status, DeadLetterReason::AttemptsExhausted);
            }
            _ => drop(expected.insert(status, DeadLetterReason::Rejected)),
        }
    }
    world.nothing_owed().await;
    let letters = world.dead_letters(expected.len()).await;
    let found: BTreeMap<_, _> = letters
        .iter()
        .map(|filed| {
            let Some(AttemptOutcome::Answered { status, .. }) =
                filed.letter.attempts.as_ref().map(|a| &a.last().unwrap().outcome)
            else {
                panic!("{filed:?}");
            };
            assert_eq!(status.to_string().as_bytes(), filed.letter.message.payload());
            (*status, filed.letter.reason)
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(server.count(), 393, "each was sent once");
}

#[tokio::test]
async fn response_bomb() {
    let flood = Faulty::new(Fault::Flood(b"HTTP/1.1 422 No\r\n\r\n".to_vec())).await;
    let pair = Pair::new(target(&flood.url()), Server::answering(200).await).await;
    pair.meet(DeadLetter, "a body without end").await;
    eventually("the connection is dropped", || flood.floods_ended() == 1).await;
    let letter = pair.world.dead_letters(1).await.remove(0).letter;
    let attempts = letter.attempts.unwrap();
    let AttemptOutcome::Answered { excerpt, .. } = &attempts.last().unwrap().outcome else { panic!() };
    assert_eq!(**excerpt, "x".repeat(excerpt.len()));
    assert!((1..=4096).contains(&excerpt.len()));

    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b'x'; 64 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    let head = format!("HTTP/1.1 422 No\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let gzip = Faulty::new(Fault::Bytes([head.as_bytes(), &bomb].concat())).await;
    let pair = Pair::new(target(&gzip.url()), Server::answering(200).await).await;
    pair.meet(DeadLetter, "an answer that is small until it is decompressed").await;
    let letter = pair.world.dead_letters(1).await.remove(0).letter;
    let attempts = letter.attempts.unwrap();
    let AttemptOutcome::Answered { excerpt, .. } = &attempts.last().unwrap().outcome else { panic!() };
    assert!(excerpt.starts_with("\\u{1f}"), "it is kept as it came: {excerpt}");
}

#[tokio::test]
async fn redirect_ssrf() {
    let elsewhere = Server::answering(200).await;
    for location in ["http://169.254.169.254/latest/meta-data/", &elsewhere.url, "//169.254.169.254/"] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        expect(Fault::Bytes(answer.into_bytes()), DeadLetter).await;
    }
    assert_eq!(elsewhere.count(), 0);

    // Every address of a name is judged. This one leads to 127.0.0.1 as names do that their owner has changed: it is
    // no address as URLs have it, and the system's resolver takes it for one.
    let inside = Server::answering(200).await;
    let port = inside.url.rsplit(':').next().unwrap();
    let mut target = target(&format!("http://127.1:{port}"));
    let pair = waits(
        target.clone(),
        "127.1 leads to 127.0.0.1 (this machine itself); if it is meant to, add addresses = [",
    )
    .await;
    assert_eq!(inside.count(), 0);

    // What waits is delivered when the operator says that it is meant.
    target.addresses.listed = vec!["127.0.0.0/8".parse().unwrap()];
    let world = pair.world.restart(&config(target), NOW).await;
    world.nothing_owed().await;
    assert_eq!(inside.bodies(), ["m"]);
}
