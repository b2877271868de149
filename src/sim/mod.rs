//! Simulations of everything around the provider, for `dew-provider demo`, `dew-provider emulate`
//! and the tests. Built only with the feature `sim`.
//!
//! | Module | Simulates |
//! |---|---|
//! | [`huawei`] | Huawei Cloud: CSMS, IAM's project lookup, the ECS metadata service |
//! | [`kubernetes`] | the Kubernetes API server |
//! | [`csi_driver`] | the Secrets Store CSI Driver |
//! | [`demo`] | nothing: the demo that combines the other three with the real provider |

pub mod csi_driver;
pub mod demo;
pub mod huawei;
pub mod kubernetes;
