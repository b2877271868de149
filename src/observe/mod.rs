//! What operators see: logs, metrics, health.

pub mod metrics;
