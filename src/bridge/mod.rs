//! From a route to an HTTP target: the request, the attempt, what its outcome means, and when to try again.
//!
//! [`Bridge`] has a task for each route, which reads what the route is owed and has it posted. The rules
//! (`policy`) are pure: time and randomness come in as arguments. Only
//! `client` touches the network.
//!
//! Invariant: what is given up on becomes a dead letter; nothing that was committed for a target ends
//! without an answer that completes it or a record that says why not.

mod captures;
pub(crate) mod client;
mod delivery;
mod engine;
mod excerpt;
pub(crate) mod filter;
mod letters;
mod metrics;
pub(crate) mod policy;
mod reply;
pub(crate) mod request;

pub use delivery::{BreakerState, LastError, Rate, RouteState, RouteStatus, TargetState};
pub use engine::{Bridge, BridgeError, Changed, Leftover, ReachedRoute, RemovedError, RemovedRoute};
pub use excerpt::excerpt;
pub use letters::{
    DeadLetterFilter, DeadLetterPage, DeadLetters, DeadLettersError, FiledLetter, Import, ImportError,
    Imported,
};
