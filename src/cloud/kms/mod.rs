//! Calls of KMS v1.0. Source: Huawei's Go and Python SDKs, `services/kms/v2`.
//!
//! KMS writes numbers and flags as text, keys and data keys as hex, and everything else that is binary as Base64.

mod answer;
mod calls;
mod request;
mod signing;
#[cfg(test)]
mod tests;
mod types;

pub use calls::Kms;
pub use request::{MAX_AAD, MAX_DATA};
pub use signing::SigningAlgorithm;
pub use types::{DataKey, EncryptionAlgorithm, KeyInfo, KeyState, KeyStatus, NewKey};
