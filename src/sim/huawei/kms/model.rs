//! The data model of KMS: a key with its material and state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::material::KeyMaterial;

/// The keys of one project, by ID.
pub(in crate::sim::huawei) type ProjectKeys = BTreeMap<String, EmulatedKey>;

/// All keys, by project ID and key ID.
pub(in crate::sim::huawei) type KeysByProject = BTreeMap<String, ProjectKeys>;

/// `key_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::sim::huawei) enum KeyStatusCode {
    Enabled,
    Disabled,
    PendingDeletion,
}

impl KeyStatusCode {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Enabled => "2",
            Self::Disabled => "3",
            Self::PendingDeletion => "4",
        }
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::sim::huawei) enum KeyUsage {
    EncryptDecrypt,
    SignVerify,
}

/// A key. Its material is serialized only to the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::sim::huawei) struct EmulatedKey {
    pub(super) id: String,
    pub(super) alias: String,
    pub(super) description: String,
    pub(super) region: String,
    pub(super) usage: KeyUsage,
    pub(super) state: KeyStatusCode,
    pub(super) create_time: i64,
    pub(super) deletion_time: Option<i64>,
    pub(super) material: Arc<KeyMaterial>,
}

impl EmulatedKey {
    /// `key_info` of describe-key and an entry of `key_details` of list-keys.
    pub(super) fn json(&self) -> Json {
        json!({
            "key_id": self.id,
            "domain_id": "0a0b0c0d0e0f00000000000000000000",
            "key_alias": self.alias,
            "realm": self.region,
            "key_description": self.description,
            "creation_date": self.create_time.to_string(),
            "scheduled_deletion_date": self.deletion_time.map(|at| at.to_string()).unwrap_or_default(),
            "key_state": self.state.text(),
            "default_key_flag": "0",
            "key_type": "1",
            "expiration_time": "",
            "origin": "kms",
            "key_rotation_enabled": "false",
            "sys_enterprise_project_id": "0",
            "keystore_id": "0",
            "key_spec": self.material.spec().name(),
            "key_usage": match self.usage {
                KeyUsage::EncryptDecrypt => "ENCRYPT_DECRYPT",
                KeyUsage::SignVerify => "SIGN_VERIFY",
            },
        })
    }

    /// The answer of a call that changed the state.
    pub(super) fn status(&self) -> Json {
        json!({"key_id": self.id, "key_state": self.state.text()})
    }
}
