//! Calls of CSMS v1. Source: Huawei's Go SDK, `services/csms/v1`.

mod calls;
mod name;
mod request;
mod selector;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use calls::Csms;
pub use name::{NAME_RULE, is_valid_name};
pub use selector::{VersionSelector, version_number};
pub use types::{NewSecret, Secret, SecretValue, SecretVersion, Stage, VersionMetadata};
