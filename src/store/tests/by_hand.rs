//! A store whose writer has no thread: whoever opened it says when it takes what waits, when that becomes durable,
//! and when others hear of it.

use super::writer::{Commit, Committed, Writer};
use super::*;

/// The writer of a store, to be stepped.
pub(crate) struct ByHand {
    writer: Writer,
    stage: Stage,
}

enum Stage {
    Idle,
    Begun(Box<Commit>),
    Done(Committed),
    Failed,
}

/// What a step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is nothing to write.
    Nothing,
    /// So many records were taken.
    Begun(usize),
    /// They are on disk.
    Committed,
    /// The watermark has moved.
    Announced,
    /// The store has failed, now or before.
    Failed,
}

impl ByHand {
    /// A store on this disk that writes when it is stepped.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(crate) fn open(
        disk: &Disk,
        settings: &StoreSettings,
    ) -> Result<(Store, Recovered, Self), StoreError> {
        let (opened, registry) = load(database(disk)?)?;
        let (store, writer, recovered) = Store::assemble(opened, registry, settings);
        Ok((store, recovered, Self { writer, stage: Stage::Idle }))
    }

    /// Goes on by a third of a commit.
    pub(crate) fn step(&mut self) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Idle => self.begin(),
            Stage::Begun(commit) => match self.writer.finish(*commit) {
                Ok(committed) => {
                    self.stage = Stage::Done(committed);
                    Step::Committed
                }
                Err(error) => self.fail(&error),
            },
            Stage::Done(committed) => {
                self.writer.announce(&committed);
                self.stage = Stage::Idle;
                Step::Announced
            }
            Stage::Failed => Step::Failed,
        }
    }

    fn begin(&mut self) -> Step {
        // With other work the queue does not wait for records.
        let batch = self.writer.shared.queue.take(self.writer.batch_bytes_max, Lsn(u64::MAX), true);
        let batch = batch.unwrap_or_default();
        if batch.entries.is_empty() && !self.writer.state.has_work() {
            self.stage = Stage::Idle;
            return Step::Nothing;
        }
        match self.writer.begin(&batch) {
            Ok(commit) => {
                self.stage = Stage::Begun(Box::new(commit));
                Step::Begun(batch.entries.len())
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &StoreError) -> Step {
        self.writer.shared.fail(error);
        Step::Failed
    }
}
