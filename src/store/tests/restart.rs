//! What a start rebuilds is what was there.

use super::model::{Model, assert_recovered, held_by, random_record};
use super::*;

/// One store over several starts, in lockstep with its model.
struct Pair {
    dice: Dice,
    model: Model,
    entries: Vec<Arc<Entry>>,
    last: Lsn,
}

impl Pair {
    fn submit(&mut self, store: &Store, record: Record) {
        let entry = store.submit(record.clone()).unwrap();
        assert!(entry.lsn > self.last, "numbers rise, and over starts, too");
        self.last = entry.lsn;
        self.model.apply(entry.lsn, &record);
        self.entries.push(entry);
    }

    /// Completes a leg of a record that may wait for the writer still, or not any more.
    fn complete(&mut self) {
        let Some(entry) = self.dice.pick(&self.entries) else { return };
        let (recipient, lsn) = (RecipientNo(1 + self.dice.roll(12) as u64), entry.lsn);
        if entry.strike(recipient).is_struck() {
            self.model.strike(recipient, lsn);
        }
    }

    fn compare(&mut self, store: &Store) {
        wait(store, self.last);
        assert_eq!(held_by(store), self.model);
        self.entries.clear();
    }
}

fn run(seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair { dice: Dice(seed), model: Model::default(), entries: Vec::new(), last: Lsn::ZERO };
    for _ in 0..4 {
        let (store, recovered) = open_in(directory.path());
        assert_recovered(&recovered, &pair.model);
        assert_eq!(held_by(&store), pair.model);
        for _ in 0..80 {
            let record = random_record(&mut pair.dice, &pair.model, &store);
            pair.submit(&store, record);
            if pair.dice.one_in(2) {
                pair.complete();
            }
            if pair.dice.one_in(20) {
                pair.compare(&store);
            }
        }
        pair.compare(&store);
        store.close();
    }
    let (store, _) = open_in(directory.path());
    pair.submit(&store, pair.model.settle_all());
    pair.compare(&store);
    assert_eq!(message_rows(&store), [0; 0], "what is settled is gone");
    store.close();
}

#[test]
fn what_a_start_rebuilds_is_what_was_there() {
    (0..12).for_each(run);
}
