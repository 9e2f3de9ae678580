//! What happens when the process may not open one more file: the door stays, and so do the rules.
//!
//! In a process of its own and as its only test, because the limit is the whole process's.

use std::{fs::File, net::SocketAddr, time::Duration};

use causeway::{
    auth::Authenticator,
    config::AuthConfig,
    topic::TopicName,
    transport::{ConnectionLimit, Listener},
};
use tokio::{net::TcpStream, time::timeout};

/// Opens files until no more can be opened.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test]
async fn a_process_without_descriptors_keeps_its_rules_and_accepts_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let acl_file = folder.path().join("acl");
    std::fs::write(&acl_file, "topic read a").unwrap();
    let config = AuthConfig { acl_file: Some(acl_file), ..Default::default() };
    let auth = Authenticator::load(config).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let nobody = auth.authenticate(any, None, None).unwrap();

    let limit = ConnectionLimit::new(10);
    let mut listener = Listener::bind(any, None, limit.clone(), limit).unwrap();
    rlimit::setrlimit(rlimit::Resource::NOFILE, 64, rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap().1)
        .unwrap();
    let client = TcpStream::connect(listener.address()).await.unwrap();
    let files = exhaust();
    assert!(!files.is_empty());

    assert!(auth.reload().is_err());
    let rights = auth.rights(&nobody, "1").unwrap();
    let may_receive = |topic| rights.may_receive(&TopicName::parse(topic, 1).unwrap());
    assert!(may_receive("a") && !may_receive("b"));

    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    drop(files);
    let accepted = timeout(Duration::from_secs(10), listener.accept()).await.unwrap();
    assert_eq!(accepted.peer, client.local_addr().unwrap());
    auth.reload().unwrap();
}
