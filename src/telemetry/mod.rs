//! What operators see: logs and metrics.

pub mod logs;
pub mod metrics;

pub use logs::{LogFormat, init_logs};
