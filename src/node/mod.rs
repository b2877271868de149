//! What runs on every node: the driver's sockets, the pipeline of a Mount, the mounted volumes, and the
//! delivery of changes to them.

pub mod admin;
pub mod delivery;
pub mod hardening;
pub mod mount;
pub mod pod_credentials;
pub mod readiness;
pub mod socket;
pub mod volumes;
