//! From a route to an HTTP target: the request, the attempt, what its outcome means, and when to try again.
//!
//! The rules are pure: time and randomness come in as arguments. Only [`client`] touches the network.
//!
//! Invariant: what is given up on becomes a dead letter; nothing that was committed for a target ends
//! without an answer that completes it or a record that says why not.

pub mod breaker;
pub mod client;
mod connector;
pub mod excerpt;
pub mod failure;
pub mod request;
pub mod retry;
pub mod status;
pub mod tries;
