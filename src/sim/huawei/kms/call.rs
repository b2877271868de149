//! A call, and what the operations share.

use serde::de::DeserializeOwned;

use super::material::KeyMaterial;
use super::model::{EmulatedKey, KeyStatusCode, ProjectKeys};
use crate::sim::huawei::config::Rights;
use crate::sim::huawei::reply::{ApiRejection, reject};

/// One authenticated call on the keys of one project.
pub(in crate::sim::huawei) struct KmsCall<'a> {
    pub(in crate::sim::huawei) operation: &'static str,
    pub(in crate::sim::huawei) body: &'a [u8],
    pub(in crate::sim::huawei) rights: Rights,
    /// Milliseconds since 1970.
    pub(in crate::sim::huawei) now: i64,
    pub(in crate::sim::huawei) region: &'a str,
    /// For CreateKey: see [`super::material()`].
    pub(in crate::sim::huawei) material: Option<KeyMaterial>,
}

impl KmsCall<'_> {
    pub(super) fn authorize(&self) -> Result<(), ApiRejection> {
        let rights = self.rights;
        let allowed = match self.operation {
            "ListKeys" => rights.list,
            "ListKeyDetail" | "ShowPublicKey" => rights.read,
            operation if writes(operation) => rights.write,
            _ => true,
        };
        if allowed && rights.kms {
            return Ok(());
        }
        Err(reject(403, "KMS.0306", "No permission to use the key"))
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiRejection> {
        serde_json::from_slice(self.body).map_err(|error| {
            if error.is_data() {
                return reject(
                    400,
                    "KMS.0308",
                    "A parameter is missing or of the wrong type",
                );
            }
            reject(400, "KMS.0202", "The request body is not JSON")
        })
    }
}

/// Whether an operation may change keys.
pub(in crate::sim::huawei) fn writes(operation: &str) -> bool {
    matches!(
        operation,
        "CreateKey" | "EnableKey" | "DisableKey" | "DeleteKey" | "CancelKeyDeletion"
    )
}

/// A key in any state.
pub(super) fn find<'k>(keys: &'k ProjectKeys, id: &str) -> Result<&'k EmulatedKey, ApiRejection> {
    check_id(id)?;
    keys.get(id).ok_or_else(not_found)
}

/// A key to change.
pub(super) fn find_mut<'k>(
    keys: &'k mut ProjectKeys,
    id: &str,
) -> Result<&'k mut EmulatedKey, ApiRejection> {
    check_id(id)?;
    keys.get_mut(id).ok_or_else(not_found)
}

/// A key that can be used now.
pub(super) fn usable<'k>(keys: &'k ProjectKeys, id: &str) -> Result<&'k EmulatedKey, ApiRejection> {
    let key = find(keys, id)?;
    match key.state {
        KeyStatusCode::Enabled => Ok(key),
        KeyStatusCode::Disabled => Err(reject(400, "KMS.0209", "The key is disabled")),
        KeyStatusCode::PendingDeletion => Err(pending_deletion()),
    }
}

pub(super) fn pending_deletion() -> ApiRejection {
    reject(400, "KMS.0210", "The key is scheduled for deletion")
}

fn not_found() -> ApiRejection {
    reject(404, "KMS.0207", "The key does not exist")
}

fn check_id(id: &str) -> Result<(), ApiRejection> {
    if id.len() == 36
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Ok(());
    }
    Err(reject(400, "KMS.0205", "key_id is invalid"))
}

/// Additional authenticated data: 1 to 128 characters.
pub(super) fn check_aad(aad: Option<&str>) -> Result<&str, ApiRejection> {
    let Some(text) = aad else {
        return Ok("");
    };
    if (1..=128).contains(&text.chars().count()) {
        return Ok(text);
    }
    let message = "additional_authenticated_data must have 1 to 128 characters";
    Err(reject(400, "KMS.0208", message))
}

/// A number that travels as text.
pub(super) fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
