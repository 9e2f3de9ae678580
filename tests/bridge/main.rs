//! From a PUBLISH to an HTTP target: what is acknowledged arrives, or becomes a dead letter that says why.

mod dead_letters;
mod delivery;
mod failures;
mod world;
