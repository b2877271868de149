//! The types of the KMS API. Source: Huawei's Go SDK, `services/kms/v2`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::answer::text;
use crate::util::secret_bytes::SecretBytes;

/// A key that encrypts data outside of KMS.
#[derive(Clone, Debug)]
pub struct DataKey {
    /// The KMS key that encrypted it.
    pub key_id: String,
    /// The key itself.
    pub plain: SecretBytes,
    /// The key as KMS encrypted it, to be stored beside what it encrypts.
    pub cipher: Vec<u8>,
}

/// A key to create. Whatever is `None` has the service's default: AES_256 for encryption.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Display name: 1 to 255 letters, digits, `:`, `/`, `_` or `-`.
    pub alias: String,
    /// Kind of key, such as `AES_256`, `RSA_2048`, `RSA_3072`, `RSA_4096`, `EC_P256` or `EC_P384`.
    pub spec: Option<String>,
    /// `ENCRYPT_DECRYPT` or `SIGN_VERIFY`.
    pub usage: Option<String>,
    /// At most 255 characters.
    pub description: Option<String>,
}

/// What KMS says of a key. Numbers and flags are text, as in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyInfo {
    /// ID: 36 characters.
    #[serde(deserialize_with = "text")]
    pub key_id: String,
    /// The account that owns it.
    #[serde(deserialize_with = "text")]
    pub domain_id: String,
    /// Display name.
    #[serde(deserialize_with = "text")]
    pub key_alias: String,
    /// The region it is in.
    #[serde(deserialize_with = "text")]
    pub realm: String,
    /// Kind of key, such as `AES_256`.
    #[serde(deserialize_with = "text")]
    pub key_spec: String,
    /// `ENCRYPT_DECRYPT` or `SIGN_VERIFY`.
    #[serde(deserialize_with = "text")]
    pub key_usage: String,
    /// Free text of its owner.
    #[serde(deserialize_with = "text")]
    pub key_description: String,
    /// When it was created, as Unix time in milliseconds.
    #[serde(deserialize_with = "text")]
    pub creation_date: String,
    /// When it will be deleted, as Unix time in milliseconds, if a deletion is scheduled.
    #[serde(deserialize_with = "text")]
    pub scheduled_deletion_date: String,
    /// `1` to `5`: see [`KeyInfo::state`].
    #[serde(deserialize_with = "text")]
    pub key_state: String,
    /// `1` for a default key of a service, else `0`.
    #[serde(deserialize_with = "text")]
    pub default_key_flag: String,
    /// `kms`, or `external` for imported material.
    #[serde(deserialize_with = "text")]
    pub origin: String,
}

impl KeyInfo {
    /// The state of the key.
    pub fn state(&self) -> KeyState {
        KeyState::of(&self.key_state)
    }
}

/// A key and its state, after a call that changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyStatus {
    /// ID of the key.
    #[serde(deserialize_with = "text")]
    pub key_id: String,
    /// `1` to `5`: see [`KeyStatus::state`].
    #[serde(deserialize_with = "text")]
    pub key_state: String,
}

impl KeyStatus {
    /// The state of the key.
    pub fn state(&self) -> KeyState {
        KeyState::of(&self.key_state)
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Not yet active.
    PendingActivation,
    /// Usable.
    Enabled,
    /// Disabled by its owner.
    Disabled,
    /// Will be deleted.
    PendingDeletion,
    /// Waits for its material.
    PendingImport,
    /// A state that this release does not know.
    Unknown,
}

impl KeyState {
    /// Source: API reference of KMS, `key_state`.
    fn of(text: &str) -> Self {
        match text {
            "1" => Self::PendingActivation,
            "2" => Self::Enabled,
            "3" => Self::Disabled,
            "4" => Self::PendingDeletion,
            "5" => Self::PendingImport,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PendingActivation => "pending activation",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending deletion",
            Self::PendingImport => "pending import",
            Self::Unknown => "unknown",
        })
    }
}

/// How encrypt-data encrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncryptionAlgorithm {
    /// With a symmetric key.
    #[default]
    Symmetric,
    /// With an RSA key, OAEP with SHA-256.
    RsaOaepSha256,
}

impl EncryptionAlgorithm {
    /// KMS's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Symmetric => "SYMMETRIC_DEFAULT",
            Self::RsaOaepSha256 => "RSAES_OAEP_SHA_256",
        }
    }
}

impl fmt::Display for EncryptionAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EncryptionAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "SYMMETRIC_DEFAULT" => Ok(Self::Symmetric),
            "RSAES_OAEP_SHA_256" => Ok(Self::RsaOaepSha256),
            _ => Err("expected SYMMETRIC_DEFAULT or RSAES_OAEP_SHA_256".to_owned()),
        }
    }
}
