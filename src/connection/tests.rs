//! A client on loopback, in front of a real store.

mod clients;
mod pressure;
mod rules;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::auth::Authenticator;
use crate::broker::tests::{LIMITS, STORE};
use crate::broker::{BrokerLimits, RouteFilters};
use crate::config::{Config, RouteConfig};
use crate::store::tests::{Disk, open_on};
use crate::store::{Recovered, Store};
use crate::telemetry::Metrics;

/// A broker on `store` that accepts on loopback until the test ends.
async fn broker_on(store: (Store, Recovered)) -> (Arc<Broker>, SocketAddr) {
    broker_with(LIMITS, store).await
}

async fn broker_with(
    limits: BrokerLimits,
    (store, recovered): (Store, Recovered),
) -> (Arc<Broker>, SocketAddr) {
    let auth = Arc::new(Authenticator::load(Config::default().auth).unwrap());
    let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let context = context(&broker, address);
    tokio::spawn(async move {
        while let Ok((accepted, peer)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&context), Stream::Tcp(accepted), peer));
        }
    });
    (broker, address)
}

fn context(broker: &Arc<Broker>, listener: SocketAddr) -> Arc<ConnectionContext> {
    Arc::new(ConnectionContext {
        broker: Arc::clone(broker),
        listener,
        connect_timeout: Duration::from_secs(10),
        packet_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        password_checks: Arc::new(Semaphore::new(1)),
    })
}

/// Sends, and waits for exactly this answer.
async fn ask(client: &mut TcpStream, bytes: &[u8], answer: &[u8]) {
    client.write_all(bytes).await.unwrap();
    let mut read = vec![0; answer.len()];
    let answered = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut read)).await;
    answered.unwrap_or_else(|_| panic!("no {answer:02x?}")).unwrap();
    assert_eq!(read, answer);
}

#[tokio::test]
async fn qos1_ack_after_fsync() {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    // A durable session of 3.1.1 that is owed what comes, and is away.
    let mut keeper = TcpStream::connect(address).await.unwrap();
    ask(&mut keeper, b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01k", b"\x20\x02\0\0").await;
    ask(&mut keeper, b"\x82\x06\0\x01\0\x01t\x01", b"\x90\x03\0\x01\x01").await;
    drop(keeper);
    let mut clients = Vec::new();
    for connect in [b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01p", b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01o"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, connect, b"\x20\x02\0\0").await;
        clients.push(client);
    }
    let [publisher, other] = &mut clients[..] else { panic!("two clients") };
    ask(other, b"\x82\x06\0\x01\0\x01o\x01", b"\x90\x03\0\x01\x01").await;

    disk.hold_syncs();
    // PINGRESP comes, PUBACK does not.
    ask(publisher, b"\x32\x06\0\x01t\0\x05x\xc0\0", b"\xd0\0").await;
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await.unwrap();
    ask(publisher, b"\xc0\0", b"\xd0\0").await;
    // Who needs no disk is served: a message comes back before its PUBACK does, and both come.
    ask(other, b"\x30\x04\0\x01oy", b"\x30\x04\0\x01oy").await;
    ask(other, b"\x32\x06\0\x01n\0\x09z", b"\x40\x02\0\x09").await;
    ask(publisher, b"\xc0\0", b"\xd0\0").await;

    disk.release_syncs();
    ask(publisher, b"", b"\x40\x02\0\x05").await;
    broker.store.close();
}

#[tokio::test]
async fn qos1_ack_without_the_disk_when_everyone_has_it() {
    let disk = Disk::default();
    let (broker, address) = broker_on(open_on(&disk, &STORE).unwrap()).await;
    let connect = async |bytes| {
        let mut client = TcpStream::connect(address).await.unwrap();
        ask(&mut client, bytes, b"\x20\x02\0\0").await;
        client
    };
    // Durable sessions: one is owed what comes to "t" and "u", the other what comes to "u", and is away.
    let mut here = connect(b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01h").await;
    ask(&mut here, b"\x82\x0a\0\x01\0\x01t\x01\0\x01u\x01", b"\x90\x04\0\x01\x01\x01").await;
    let mut away = connect(b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01a").await;
    ask(&mut away, b"\x82\x06\0\x01\0\x01u\x01", b"\x90\x03\0\x01\x01").await;
    away.write_all(b"\xe0\0").await.unwrap();
    assert_eq!(away.read(&mut [0]).await.unwrap(), 0);
    // That it has left is on disk, too: the next record is taken at once.
    broker.store.durable(broker.store.last_submitted()).await.unwrap();
    let mut first = connect(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01f").await;
    let mut second = connect(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01s").await;

    disk.hold_syncs();
    ask(&mut first, b"\x32\x06\0\x01t\0\x05x", b"").await;
    ask(&mut here, b"", b"\x32\x06\0\x01t\0\x01x").await;
    let held = disk.clone();
    tokio::task::spawn_blocking(move || held.wait_until_held()).await.unwrap();
    // What was taken for writing waits for the disk, whoever has it meanwhile.
    ask(&mut here, b"\x40\x02\0\x01\xc0\0", b"\xd0\0").await;
    ask(&mut first, b"\xc0\0", b"\xd0\0").await;

    // What waits behind it is acknowledged as soon as the one who is to get it has acknowledged it.
    ask(&mut second, b"\x32\x06\0\x01t\0\x06y", b"").await;
    ask(&mut here, b"", b"\x32\x06\0\x01t\0\x02y").await;
    ask(&mut second, b"\xc0\0", b"\xd0\0").await;
    ask(&mut here, b"\x40\x02\0\x02", b"").await;
    ask(&mut second, b"", b"\x40\x02\0\x06").await;

    // With somebody away it is not, and neither is what comes behind.
    ask(&mut second, b"\x32\x06\0\x01u\0\x07z\x32\x06\0\x01t\0\x08z", b"").await;
    ask(&mut here, b"", b"\x32\x06\0\x01u\0\x03z\x32\x06\0\x01t\0\x04z").await;
    ask(&mut here, b"\x40\x02\0\x03\x40\x02\0\x04\xc0\0", b"\xd0\0").await;
    ask(&mut second, b"\xc0\0", b"\xd0\0").await;

    disk.release_syncs();
    ask(&mut first, b"", b"\x40\x02\0\x05").await;
    ask(&mut second, b"", b"\x40\x02\0\x07\x40\x02\0\x08").await;
    broker.store.close();
}

#[tokio::test]
async fn packets_in_one_segment_with_connect_are_answered_and_a_task_cut_off_gives_its_session_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, recovered) = Store::open(folder.path(), &STORE).unwrap();
    let auth = Arc::new(Authenticator::load(Config::default().auth).unwrap());
    let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), LIMITS);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let context = context(&broker, address);
    let mut client = TcpStream::connect(address).await.unwrap();
    let (accepted, peer) = listener.accept().await.unwrap();
    let served = tokio::spawn(serve(context, Stream::Tcp(accepted), peer));
    // CONNECT of 3.1.1 with client id "c", a clean session and no keep-alive; PINGREQ.
    client.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c\xc0\0").await.unwrap();
    let mut answer = [0; 6];
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    assert_eq!(answer, *b"\x20\x02\0\0\xd0\0", "CONNACK and PINGRESP");
    // A task that is cut off leaves no session that counts as online.
    assert!(broker.find("c").is_some());
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(broker.find("c").is_none());
    broker.store.close();
}
