//! dew-provider: a provider for the Kubernetes Secrets Store CSI Driver that reads secrets from
//! Huawei Cloud CSMS.
//!
//! The way of a Mount: [`socket`] accepts the driver's connection, [`provider`] takes the request
//! through its seven steps, asking [`store`] for versions of secrets, which asks [`cloud`].
//! Dependencies point down only: `provider → store → cloud`.

pub mod clock;
pub mod cloud;
pub mod driver;
pub mod emulator;
pub mod observe;
pub mod proto;
pub mod secret;
pub mod socket;
