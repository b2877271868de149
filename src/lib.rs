//! dew-provider: a provider for the Kubernetes Secrets Store CSI Driver that reads secrets from
//! Huawei Cloud CSMS.
//!
//! The way of a Mount: [`socket`] accepts the driver's connection, [`provider`] takes the request
//! through its steps, asking [`store`] for versions of secrets, which asks [`cloud`].
//! Dependencies point down only: `provider → store → cloud`. [`rotation`] finds out what moved and gets
//! it into pods. [`kube`] and [`observe`] stand at the side, [`serve`] puts all together. [`emulator`],
//! [`apiserver`] and [`driver`] are the ends of the world for the demo and the tests.

pub mod apiserver;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod driver;
pub mod emulator;
pub mod flight;
pub mod interval;
pub mod kube;
pub mod lint;
pub mod observe;
pub mod proto;
pub mod provider;
pub mod rotation;
pub mod secret;
pub mod serve;
pub mod socket;
pub mod store;
