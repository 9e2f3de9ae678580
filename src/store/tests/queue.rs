//! The writer's queue, looked at by one thread.

use std::time::Duration;

use crate::record::{Lsn, Record};
use crate::store::queue::Queue;

const LONG: Duration = Duration::from_hours(1);

#[test]
fn what_comes_during_the_patience_has_its_own_and_a_close_ends_it() {
    let queue = Queue::new(Lsn(1), Lsn(100));
    queue.submit(Record::default()).unwrap();
    let last = queue.patience(Duration::ZERO);
    queue.submit(Record::default()).unwrap();
    let batch = queue.take(usize::MAX, last, false).unwrap();
    assert_eq!((batch.entries.len(), batch.last), (1, Lsn(1)));

    queue.close();
    let last = queue.patience(LONG);
    assert_eq!(queue.take(usize::MAX, last, false).unwrap().last, Lsn(2), "nothing is left behind");
    let last = queue.patience(LONG);
    assert_eq!(last, Lsn::ZERO);
    assert!(queue.take(usize::MAX, last, false).is_none(), "that was all");
}
