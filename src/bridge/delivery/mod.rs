//! The task of a route and what it works with: its window on the backlog, its target, what it settles.

mod lanes;
mod monitor;
mod outcome;
mod reading;
mod settlement;
mod slots;
mod starting;
pub(super) mod target;
mod window;
pub(super) mod worker;

pub(super) use monitor::Monitor;
pub use monitor::{BreakerState, LastError, Rate, RouteState, RouteStatus};
pub use target::TargetState;
