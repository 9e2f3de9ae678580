//! The rules of delivery: what an outcome means, when to try again, and when to leave a target alone.
//!
//! All of them are pure: time and randomness come in as arguments.

pub(super) mod breaker;
mod calls;
pub(super) mod concurrency;
pub(super) mod rate;
pub(super) mod retry;
pub(crate) mod status;
pub(super) mod tries;
