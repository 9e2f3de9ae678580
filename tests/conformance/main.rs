//! What MQTT asks of a server, asked of the real broker: bytes over a socket to a process of its own.
//!
//! Each test names the statements it proves by [`proves!`], with the version whose numbering is meant:
//! `"5.0 MQTT-3.1.2-4"`, `"3.1.1 MQTT-3.1.2-6"`, or `"U-4.8.2-b"` for one of 5.0 that has no number. A statement
//! about clients is tested as what the broker does to a client that breaks it.
//!
//! One broker serves most tests, each with client ids and topics of its own; a test that needs other settings
//! or a crash starts another. That nothing arrives is shown by a PINGRESP that arrives before it, not by waiting.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

/// Names the statements that the test proves, for those who list them.
macro_rules! proves {
    ($($statement:literal),+ $(,)?) => {
        const _: &[&str] = &[$($statement),+];
    };
}

mod harness;

mod access;
mod auth;
mod authorization;
mod choices;
mod connect;
mod crash;
mod dead_letters;
mod diagnostics;
mod extremes;
mod ids;
mod keepalive;
mod malformed;
mod obligations;
mod offer;
mod overflow;
mod parser;
mod properties;
mod publish;
mod qos1;
mod qos2;
mod redirect;
mod resume;
mod retained;
mod routing;
mod session;
mod shared;
mod states;
mod storm;
mod subscribe;
mod sys;
mod takeover;
mod unsubscribe;
mod websocket;
mod websocket_request;
mod will;
