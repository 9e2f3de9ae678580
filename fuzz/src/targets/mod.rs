//! One module for each target: `run` takes any bytes and panics when something is wrong.

pub mod acl;
pub mod config;
pub mod decoder;
mod input;
mod packets;
pub mod password_file;
pub mod retained_tree;
pub mod round_trip;
pub mod rows;
pub mod session;
mod topics;
pub mod trie;

use input::Input;
