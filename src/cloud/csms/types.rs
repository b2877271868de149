//! The types of the CSMS API. Source: Huawei's Go SDK, `services/csms/v1`.

use serde::{Deserialize, Serialize};

use crate::util::json::null_as_default;
use crate::util::secret_bytes::SecretBytes;

/// A secret without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// UUID, which only tags refer to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub id: String,
    /// Name, unique in its project.
    pub name: String,
    /// `ENABLED`, `DISABLED`, `PENDING_DELETE` or `FROZEN`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: String,
    /// The KMS key that encrypts it.
    #[serde(default)]
    pub kms_key_id: Option<String>,
    /// Free text of its owner.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was created, as Unix time in milliseconds.
    #[serde(default)]
    pub create_time: Option<i64>,
    /// When it was last updated, as Unix time in milliseconds.
    #[serde(default)]
    pub update_time: Option<i64>,
    /// When it will be deleted, as Unix time in milliseconds, if a deletion is scheduled.
    #[serde(default)]
    pub scheduled_delete_time: Option<i64>,
    /// `COMMON`, or a type that CSMS rotates by itself.
    #[serde(default)]
    pub secret_type: Option<String>,
}

/// A secret to create.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// See [`is_valid_name`](super::is_valid_name).
    pub name: String,
    /// The KMS key that encrypts it; CSMS's default key if `None`.
    pub kms_key_id: Option<String>,
    /// At most 2048 characters.
    pub description: Option<String>,
    /// The value of version `v1`.
    pub value: SecretValue,
}

/// A version without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionMetadata {
    /// `v1`, `v2` and so on.
    pub id: String,
    /// When it was created, as Unix time in milliseconds.
    pub create_time: i64,
    /// When it expires, as Unix time in milliseconds.
    #[serde(default)]
    pub expire_time: Option<i64>,
    /// The KMS key that encrypts it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub kms_key_id: String,
    /// The name of the secret.
    #[serde(default, deserialize_with = "null_as_default")]
    pub secret_name: String,
    /// Stages that the version holds, such as `SYSCURRENT`.
    #[serde(
        default,
        rename = "version_stages",
        deserialize_with = "null_as_default"
    )]
    pub stages: Vec<String>,
}

/// The value of a version. `Debug` shows lengths only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretValue {
    /// `secret_string`: UTF-8 text.
    Text(SecretBytes),
    /// `secret_binary`: the bytes, decoded from Base64.
    Binary(SecretBytes),
}

impl SecretValue {
    /// The bytes, text or binary.
    pub fn bytes(&self) -> &SecretBytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// The bytes, text or binary.
    pub fn into_bytes(self) -> SecretBytes {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

/// A version with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVersion {
    /// Everything except the value.
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
    /// When it last moved, as Unix time in milliseconds.
    #[serde(default)]
    pub update_time: Option<i64>,
}
