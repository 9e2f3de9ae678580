//! From a route to an HTTP target: the request, the attempt, what its outcome means, and when to try again.
//!
//! [`Bridge`] has a task for each route, which reads what the route is owed and has it posted. The rules
//! (`breaker`, `retry`, `status`, `tries`) are pure: time and randomness come in as arguments. Only
//! `client` touches the network.
//!
//! Invariant: what is given up on becomes a dead letter; nothing that was committed for a target ends
//! without an answer that completes it or a record that says why not.

mod breaker;
pub(crate) mod client;
mod connector;
mod dead_letters;
mod engine;
mod excerpt;
mod failure;
mod metrics;
mod monitor;
pub(crate) mod request;
mod retry;
mod settlement;
pub(crate) mod status;
mod target;
mod tries;
mod window;
mod worker;

pub use dead_letters::{DeadLetterFilter, DeadLetterPage, DeadLetters, DeadLettersError, FiledLetter};
pub use engine::{Bridge, BridgeError};
pub use excerpt::excerpt;
pub use monitor::{LastError, RouteState};
