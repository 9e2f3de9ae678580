//! server

pub mod disk_watch;
