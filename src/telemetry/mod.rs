//! Names of metrics, as handles that are looked up once, and the log.

mod log;
mod metrics;

pub use log::init as init_log;
pub use metrics::{ByQos, Dropped, Metrics, Traffic};
