//! The data model of CSMS: a secret has numbered versions, and stages that each point to one
//! version.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::util::secret_bytes::SecretBytes;

pub(super) const CURRENT: &str = "SYSCURRENT";
pub(super) const PREVIOUS: &str = "SYSPREVIOUS";
/// Most versions of a secret. Beyond it, the oldest version without a stage is removed.
pub(super) const MAX_VERSIONS: usize = 20;
pub(super) const MAX_STAGES: usize = 12;

/// All secrets, by project ID and name.
pub(super) type SecretsByProject = BTreeMap<String, BTreeMap<String, EmulatedSecret>>;

/// State of a secret. Only an enabled secret can be changed, and only its values can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum SecretState {
    Enabled,
    Disabled,
    PendingDelete,
    Frozen,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EmulatedSecret {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: SecretState,
    pub(super) kms_key_id: String,
    pub(super) description: Option<String>,
    pub(super) create_time: i64,
    pub(super) update_time: i64,
    pub(super) scheduled_delete_time: Option<i64>,
    pub(super) versions: BTreeMap<u32, EmulatedVersion>,
    pub(super) stages: BTreeMap<String, VersionStage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EmulatedVersion {
    pub(super) value: StoredValue,
    pub(super) create_time: i64,
    pub(super) expire_time: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VersionStage {
    pub(super) version: u32,
    pub(super) update_time: i64,
}

/// A value, by the request field it was given in. It is serialized only to the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredValue {
    #[serde(with = "base64_bytes")]
    Text(SecretBytes),
    #[serde(with = "base64_bytes")]
    Binary(SecretBytes),
}

impl EmulatedSecret {
    /// Adds a version with the next number and moves `stages` to it, or SYSCURRENT if `stages` is
    /// empty. `expire` and `now` are milliseconds since 1970. Returns the number.
    pub(super) fn add_version(
        &mut self,
        value: StoredValue,
        expire: Option<i64>,
        stages: &[String],
        now: i64,
    ) -> u32 {
        let number = self.newest() + 1;
        let version = EmulatedVersion {
            value,
            create_time: now,
            expire_time: expire,
        };
        self.versions.insert(number, version);
        if stages.is_empty() {
            self.move_stage(CURRENT, number, now);
        }
        for stage in stages {
            self.move_stage(stage, number, now);
        }
        while self.versions.len() > MAX_VERSIONS {
            let unused =
                |number: &&u32| self.stages.values().all(|stage| stage.version != **number);
            let Some(oldest) = self.versions.keys().find(unused).copied() else {
                break;
            };
            self.versions.remove(&oldest);
        }
        self.update_time = now;
        number
    }

    /// Moves a stage to a version. The version that loses SYSCURRENT gets SYSPREVIOUS.
    pub(super) fn move_stage(&mut self, name: &str, version: u32, now: i64) {
        let stage = VersionStage {
            version,
            update_time: now,
        };
        let before = self.stages.insert(name.to_owned(), stage);
        if let (CURRENT, Some(before)) = (name, before)
            && before.version != version
        {
            let previous = VersionStage {
                version: before.version,
                update_time: now,
            };
            self.stages.insert(PREVIOUS.to_owned(), previous);
        }
    }

    /// Highest version number, or 0. Numbers are never reused: versions are removed oldest first,
    /// so the newest one is always present.
    pub(super) fn newest(&self) -> u32 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }

    /// The `secret` object of a response.
    pub(super) fn json(&self) -> Json {
        json!({
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "kms_key_id": self.kms_key_id,
            "description": self.description,
            "create_time": self.create_time,
            "update_time": self.update_time,
            "scheduled_delete_time": self.scheduled_delete_time,
            "secret_type": "COMMON",
            "auto_rotation": false,
            "event_subscriptions": [],
            "enterprise_project_id": "0",
        })
    }

    /// The `version_metadata` object of a response.
    pub(super) fn version_json(&self, number: u32, version: &EmulatedVersion) -> Json {
        let stages = self
            .stages
            .iter()
            .filter(|(_, stage)| stage.version == number);
        json!({
            "id": format!("v{number}"),
            "create_time": version.create_time,
            "expire_time": version.expire_time,
            "kms_key_id": self.kms_key_id,
            "secret_name": self.name,
            "version_stages": stages.map(|(name, _)| name).collect::<Vec<_>>(),
        })
    }

    /// The `stage` object of a response.
    pub(super) fn stage_json(&self, name: &str, stage: &VersionStage) -> Json {
        json!({
            "name": name,
            "update_time": stage.update_time,
            "secret_name": self.name,
            "version_id": format!("v{}", stage.version),
        })
    }
}

/// Returns a random ID in UUID format.
pub(super) fn uuid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Serializes values as base64.
mod base64_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &SecretBytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(value.expose()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SecretBytes, D::Error> {
        let text = String::deserialize(from)?;
        BASE64
            .decode(text.as_bytes())
            .map(SecretBytes::new)
            .map_err(|_| serde::de::Error::custom("not base64"))
    }
}
