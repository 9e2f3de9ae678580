//! What the structures shared between threads are made of, named once.
//!
//! The bell, the watermark, the writer's queue and the broker's slots take their locks and atomics from `sync` in
//! the module above them. A test that puts them under a module with another `sync` has loom play their
//! interleavings (`tests/interleavings.rs`); what it checks is this very code.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
