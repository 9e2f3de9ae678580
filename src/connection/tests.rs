//! A client on loopback, in front of a real store.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::auth::Authenticator;
use crate::broker::tests::{LIMITS, STORE};
use crate::config::Config;
use crate::store::Store;
use crate::telemetry::Metrics;

#[tokio::test]
async fn packets_in_one_segment_with_connect_are_answered_and_a_task_cut_off_gives_its_session_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, recovered) = Store::open(folder.path(), &STORE).unwrap();
    let auth = Arc::new(Authenticator::load(Config::default().auth).unwrap());
    let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), LIMITS);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let context = Arc::new(ConnectionContext {
        broker: Arc::clone(&broker),
        listener: address,
        connect_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        password_checks: Arc::new(Semaphore::new(1)),
    });
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
