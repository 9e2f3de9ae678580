//! A disk that can fail, and that forgets at a crash what was not synced.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use super::Dice;

const SECTOR: usize = 512;

/// What happens at a numbered write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This one and everything after it fails: the power is gone.
    Crash,
    /// This one fails; the ones after it work.
    Once,
    /// This write and all after it fail, syncs work: the disk is full.
    Full,
    /// The program has a bug.
    Panic,
}

/// What a crash leaves of that which was written and not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    /// Each write wholly, in part or not at all.
    Torn,
}

/// The disk; clones share it, so that a test looks at what a database works with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Medium>>, Arc<Condvar>);

#[derive(Debug, Default)]
struct Medium {
    content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Operation>,
    count: u64,
    /// Where everything was written, in order, as one number.
    trace: u64,
    fault: Option<(u64, Fault)>,
    syncs_only: bool,
    crashed: bool,
    /// Syncs do not return.
    holds: bool,
    /// One of them was called.
    is_held: bool,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Disk {
    pub(crate) fn with(content: Vec<u8>) -> Self {
        let medium = Medium { synced: content.clone(), content, ..Medium::default() };
        Self(Arc::new(Mutex::new(medium)), Arc::default())
    }

    /// Arms a fault for the n-th operation from now on, counted from one.
    pub(crate) fn fail_at(&self, n: u64, fault: Fault) {
        let mut medium = self.0.lock();
        medium.fault = Some((medium.count + n, fault));
    }

    /// Counts and fails syncs only.
    pub(crate) fn count_syncs_only(&self) {
        self.0.lock().syncs_only = true;
    }

    /// From now on no sync returns, until they are released.
    pub(crate) fn hold_syncs(&self) {
        self.0.lock().holds = true;
    }

    /// Waits until there is a sync that does not return.
    pub(crate) fn wait_until_held(&self) {
        let patience = Duration::from_secs(60);
        let waited = self.1.wait_while_for(&mut self.0.lock(), |medium| !medium.is_held, patience);
        assert!(!waited.timed_out(), "nobody has synced");
    }

    /// Lets syncs return again.
    pub(crate) fn release_syncs(&self) {
        self.0.lock().holds = false;
        self.1.notify_all();
    }

    /// From the n-th sync on, counted from one, nothing reaches the disk.
    pub(crate) fn crash_at_sync(&self, n: u64) {
        self.count_syncs_only();
        self.fail_at(n, Fault::Crash);
    }

    /// The disk as it is found after a loss of power at this moment that keeps what was synced and nothing else.
    pub(crate) fn after_power_loss(&self) -> Self {
        Self::with(self.0.lock().synced.clone())
    }

    /// Writes and syncs so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Whether the power is gone.
    pub(crate) fn has_crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// What is found when only the process was gone.
    pub(crate) fn content(&self) -> Vec<u8> {
        self.0.lock().content.clone()
    }

    /// Where everything was written so far, and how much, as one number: the same for the same run.
    pub(crate) fn trace(&self) -> u64 {
        self.0.lock().trace
    }

    /// What is found after the power comes back.
    pub(crate) fn after_crash(&self, unsynced: Unsynced, dice: &mut Dice) -> Vec<u8> {
        let medium = self.0.lock();
        let mut image = medium.synced.clone();
        for operation in &medium.unsynced {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Kept => apply(&mut image, operation),
                Unsynced::Torn => tear(&mut image, operation, dice),
            }
        }
        image
    }
}

impl Medium {
    fn step(&mut self, is_sync: bool) -> io::Result<()> {
        if self.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        if self.syncs_only && !is_sync {
            return Ok(());
        }
        self.count += 1;
        match self.fault {
            Some((at, Fault::Full)) => {
                let fails = self.count >= at && !is_sync;
                if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }
            Some((at, fault)) if at == self.count => {
                assert!(fault != Fault::Panic, "injected");
                self.crashed = fault == Fault::Crash;
                Err(io::Error::other("injected"))
            }
            _ => Ok(()),
        }
    }

    fn keep(&mut self, operation: Operation) {
        let (offset, len) = match &operation {
            Operation::Write(offset, data) => (*offset, data.len() as u64),
            Operation::SetLen(len) => (u64::MAX, *len),
        };
        for number in [offset, len] {
            self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        apply(&mut self.content, &operation);
        self.unsynced.push(operation);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.0.lock();
        let range = offset as usize..offset as usize + out.len();
        let bytes = medium.content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut medium = self.0.lock();
        medium.step(false)?;
        medium.keep(Operation::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.0.lock();
        medium.is_held = medium.holds;
        self.1.notify_all();
        self.1.wait_while(&mut medium, |medium| medium.holds);
        medium.step(true)?;
        let Medium { synced, unsynced, .. } = &mut *medium;
        unsynced.drain(..).for_each(|operation| apply(synced, &operation));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.0.lock();
        // The write at which the power goes may have reached the disk, or a part of it.
        let stepped = medium.step(false);
        if stepped.is_ok() || !medium.unsynced.is_empty() {
            medium.keep(Operation::Write(offset, data.to_vec()));
        }
        stepped
    }
}

fn apply(content: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::SetLen(len) => content.resize(*len as usize, 0),
        Operation::Write(offset, data) => put(content, *offset as usize, data),
    }
}

fn tear(content: &mut Vec<u8>, operation: &Operation, dice: &mut Dice) {
    match operation {
        _ if dice.one_in(3) => {}
        Operation::Write(offset, data) if dice.one_in(2) => {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                if dice.one_in(2) {
                    put(content, *offset as usize + index * SECTOR, sector);
                }
            }
        }
        whole => apply(content, whole),
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}
