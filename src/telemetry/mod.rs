//! Metrics as handles that are looked up once, what the process and its disk use, `$SYS`, and
//! the log.

mod log;
mod metrics;
mod recorder;
mod resources;
mod sys;
mod tally;

pub use log::init as init_log;
pub use metrics::{ByQos, Dropped, Metrics, Traffic};
pub use recorder::{install_metrics, upkeep};
pub use resources::{DiskSpace, disk_space, free_space, occupied, open_files, resident_bytes};
pub use sys::{Both, SysSample, SysTree};
pub use tally::{Level, Tally};
