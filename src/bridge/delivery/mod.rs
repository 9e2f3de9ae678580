//! The task of a route and what it works with: its window on the backlog, its target, what it settles.

mod monitor;
mod settlement;
mod slots;
pub(super) mod target;
mod window;
pub(super) mod worker;

pub(super) use monitor::Monitor;
pub use monitor::{LastError, RouteState};
pub use target::TargetState;
