//! Whether the writer gives records a little time before it takes them: whoever is connected may strike them out
//! meanwhile, which saves whole commits.

use std::time::Duration;

/// How long records may wait to be struck out, while most of them are. Whoever is acknowledged by that does not
/// wait so long; whoever is not waits a little longer than for a busy commit. Under load a message is some
/// milliseconds on its way to a subscriber and back.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// Batches before patience is tried again after it did not help; twice as many each time that it does not.
const RESTS_MIN: u32 = 64;
const RESTS_MAX: u32 = 4096;

/// Is kept while it helps, and tried when it might: when most of what was taken is settled soon after.
#[derive(Debug)]
pub(super) struct Patience {
    is_on: bool,
    /// Batches until it may be tried again.
    rests: u32,
    rests_next: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { is_on: false, rests: 0, rests_next: RESTS_MIN }
    }
}

impl Patience {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Judges a batch: how many records it had, how many of them had been struck out, and how many deliveries
    /// were settled by it that had been taken before.
    pub(super) fn judge(&mut self, records: usize, struck_out: usize, settled: usize) {
        if struck_out * 2 > records {
            *self = Self { is_on: true, ..Self::default() };
        } else if self.is_on && records > 0 {
            self.is_on = false;
            self.rests = self.rests_next;
            self.rests_next = (self.rests_next * 2).min(RESTS_MAX);
        } else if self.rests > 0 {
            self.rests -= 1;
        } else {
            self.is_on = settled * 2 > records;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_while_it_helps() {
        let mut patience = Patience::default();
        patience.judge(10, 6, 0);
        assert!(patience.is_on());
        patience.judge(10, 5, 0);
        assert!(!patience.is_on());
    }

    #[test]
    fn it_is_tried_when_what_was_taken_is_settled_soon_and_ever_less_often_when_it_does_not_help() {
        let mut patience = Patience::default();
        patience.judge(10, 0, 4);
        assert!(!patience.is_on(), "most are not for somebody who is there");
        let mut batches_until_tried = || {
            let mut batches = 0;
            while !patience.is_on() {
                patience.judge(10, 0, 9);
                batches += 1;
            }
            patience.judge(10, 0, 9);
            batches
        };
        let until_tried: Vec<_> = (0..9).map(|_| batches_until_tried()).collect();
        assert_eq!(until_tried, [1, 65, 129, 257, 513, 1025, 2049, 4097, 4097]);
        patience.judge(10, 9, 0);
        patience.judge(10, 0, 0);
        assert_eq!(patience.rests, RESTS_MIN, "it had helped meanwhile");
    }
}
