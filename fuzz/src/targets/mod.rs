//! One module for each target: `run` takes any bytes and panics when something is wrong.

mod acl;
pub mod auth_files;
pub mod config;
pub mod decoder;
mod input;
mod packets;
mod password_file;
pub mod retained_tree;
pub mod round_trip;
pub mod rows;
pub mod session;
mod topics;
pub mod trie;
pub mod websocket;

use input::Input;
