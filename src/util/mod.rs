//! Building blocks that know neither the cloud nor Kubernetes.

pub mod budgets;
pub mod clock;
pub mod env;
pub mod json;
pub mod namespace_sizes;
pub mod output;
pub mod poll_interval;
pub mod secret_bytes;
pub mod shares;
pub mod single_flight;
pub mod text;
pub mod yaml;
