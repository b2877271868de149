//! Calls of CSMS v1 (Huawei's Go SDK, `services/csms/v1`).

mod calls;
mod request;
#[cfg(test)]
mod tests;
mod value;

use serde::{Deserialize, Serialize};

pub use value::SecretValue;

/// A secret without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// UUID; only tags use it.
    #[serde(default)]
    pub id: String,
    /// Name, unique in its project.
    pub name: String,
    /// `ENABLED`, `DISABLED`, `PENDING_DELETE` or `FROZEN`.
    #[serde(default)]
    pub state: String,
    /// The KMS key that encrypts it.
    #[serde(default)]
    pub kms_key_id: Option<String>,
    /// What its owner says of it.
    #[serde(default)]
    pub description: Option<String>,
    /// Unix time in milliseconds.
    #[serde(default)]
    pub create_time: Option<i64>,
    /// Unix time in milliseconds.
    #[serde(default)]
    pub update_time: Option<i64>,
    /// Unix time in milliseconds, while a deletion is planned.
    #[serde(default)]
    pub scheduled_delete_time: Option<i64>,
    /// `COMMON` or a kind that CSMS rotates by itself.
    #[serde(default)]
    pub secret_type: Option<String>,
}

/// What to create.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// The key to encrypt with; CSMS's default key where not given.
    pub kms_key_id: Option<String>,
    /// At most 2048 characters.
    pub description: Option<String>,
    /// Becomes version `v1`.
    pub value: SecretValue,
}

/// What is known of a version beside its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionMetadata {
    /// `v1`, `v2` and so on.
    pub id: String,
    /// Unix time in milliseconds.
    pub create_time: i64,
    /// Unix time in milliseconds.
    #[serde(default)]
    pub expire_time: Option<i64>,
    /// The KMS key that encrypts it.
    #[serde(default)]
    pub kms_key_id: String,
    /// The secret that it is a version of.
    #[serde(default)]
    pub secret_name: String,
    /// Such as `SYSCURRENT`.
    #[serde(default, rename = "version_stages")]
    pub stages: Vec<String>,
}

/// A version with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    /// All but the value.
    pub metadata: VersionMetadata,
    /// The value.
    pub value: SecretValue,
}

/// A name that points to one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Such as `SYSCURRENT`.
    pub name: String,
    /// The version that holds it.
    pub version_id: String,
    /// Unix time in milliseconds.
    #[serde(default)]
    pub update_time: Option<i64>,
}
