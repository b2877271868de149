//! Clients for Huawei Cloud: CSMS, KMS, and what calling it takes (IAM, the metadata service).
//!
//! Knows neither gRPC nor Kubernetes. Every call goes through the loop in `call`:
//! limit → sign → send → classify → retry.

mod call;
mod client;
mod config;
pub mod credentials;
pub mod csms;
mod endpoints;
pub mod error;
mod iam;
mod kms;
mod permission;
mod rate_limit;
pub mod region;
mod response;
mod retry;
pub mod sign;
#[cfg(test)]
mod testing;
mod transport;

pub use client::{Caller, Cloud};
pub use config::CloudConfig;
pub use credentials::{AccessKeys, Credentials, Identity, Source};
pub use csms::{
    Csms, NAME_RULE, NewSecret, Secret, SecretValue, SecretVersion, Stage, VersionMetadata,
    VersionSelector, is_valid_name, version_number,
};
pub use error::{ApiError, ErrorKind};
pub use kms::{
    DataKey, EncryptionAlgorithm, KeyInfo, KeyState, KeyStatus, Kms, MAX_AAD, MAX_DATA, NewKey,
    SigningAlgorithm,
};
pub use rate_limit::Turn;
pub use region::Region;
pub use transport::connect::{Dial, Socket, tcp};
