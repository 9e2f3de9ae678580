//! Space: what is freed is used again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway::codec::Qos;
use causeway::record::{
    Change, Epoch, Leg, Lsn, Message, MessageParts, Publication, RecipientNo, Record, SessionOpened,
    SubscriptionIds, UnixMillis,
};
use causeway::store::{Store, StoreSettings};

const SETTINGS: StoreSettings = StoreSettings {
    cache_size: 16 << 20,
    commit_interval: Duration::ZERO,
    batch_bytes_max: 1 << 20,
    queue_bytes_max: 1 << 20,
    compact_at_start: false,
};

fn experiment(size: usize, total: usize, order: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path(), &SETTINGS).unwrap();
    let (number, _) = store.new_recipient();
    let opened = SessionOpened { recipient: number, epoch: Epoch(1), client_id: "c".into(), user_name: None, expiry: 3600, will: None, at: UnixMillis(1) };
    wait(&store, store.submit(Record::of([Change::SessionOpened(Box::new(opened))])).unwrap().lsn);
    let payload = vec![7; size];
    let count = total / size;
    for cycle in 0..8 {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let parts = MessageParts { qos: Qos::AtLeastOnce, retain: false, published_at: UnixMillis(1), expires_at: UnixMillis::NEVER, topic: "a/b", properties: &[], payload: &payload, publisher: "p" };
            let leg = Leg { recipient: number, qos: Qos::AtLeastOnce, retain: false, subscription_ids: SubscriptionIds::new() };
            let publication = Publication { message: Message::new(&parts, &mut Vec::new()), legs: [leg].into(), inbound: None, retain: false, origin: None };
            let entry = store.submit(Record { publication: Some(publication), changes: Vec::new() }).unwrap();
            if store.is_congested() { wait(&store, entry.lsn); }
            numbers.push(entry.lsn);
        }
        wait(&store, *numbers.last().unwrap());
        let peak = measure(directory.path());
        if order == "random" { let n = numbers.len(); for i in 0..n { numbers.swap(i, (i * 7919 + 13) % n); } }
        let mut last = Lsn::ZERO;
        for chunk in numbers.chunks(100) {
            last = store.submit(Record::of([Change::Settled(number, chunk.to_vec())])).unwrap().lsn;
            if store.is_congested() { wait(&store, last); }
        }
        wait(&store, last);
        let after = measure(directory.path());
        eprintln!("size {size} {order} cycle {cycle}: peak len {:.2} occ {:.2}  drained len {:.2} occ {:.2} (x of {} MiB)", peak.0 as f64 / total as f64, peak.1 as f64 / total as f64, after.0 as f64 / total as f64, after.1 as f64 / total as f64, total >> 20);
    }
    store.close();
}
fn wait(store: &Store, lsn: Lsn) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.durable(lsn)).unwrap();
}
fn measure(d: &Path) -> (u64, u64) { let m = fs::metadata(d.join("causeway.redb")).unwrap(); (m.len(), m.blocks() * 512) }
#[test]
fn exp() {
    for order in ["fifo", "random"] { for size in [200, 1000, 5000, 40_000] { experiment(size, 24 << 20, order); } }
}
