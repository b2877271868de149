//! A call, and what the operations share.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::sim::huawei::config::{LatestMeans, Rights};
use crate::sim::huawei::model::{EmulatedSecret, SecretState};
use crate::sim::huawei::reply::{ApiRejection, reject};
use crate::sim::huawei::route::ApiRoute;

/// One authenticated call on the secrets of one project.
pub(in crate::sim::huawei) struct CsmsCall<'a> {
    pub(in crate::sim::huawei) route: &'a ApiRoute,
    pub(in crate::sim::huawei) query: &'a str,
    pub(in crate::sim::huawei) body: &'a [u8],
    pub(in crate::sim::huawei) rights: Rights,
    /// Milliseconds since 1970.
    pub(in crate::sim::huawei) now: i64,
    pub(in crate::sim::huawei) latest: LatestMeans,
    pub(in crate::sim::huawei) not_found: StatusCode,
    pub(in crate::sim::huawei) delete_status: StatusCode,
}

pub(super) type ProjectSecrets = BTreeMap<String, EmulatedSecret>;

impl CsmsCall<'_> {
    pub(super) fn authorize(&self) -> Result<(), ApiRejection> {
        let operation = self.route.operation;
        let allowed = if operation.starts_with("List") {
            self.rights.list
        } else if operation.starts_with("Show") {
            self.rights.read
        } else {
            self.rights.write
        };
        if !allowed {
            return Err(reject(403, "CSMS.0302", "No permission for this operation"));
        }
        let decrypts = matches!(
            operation,
            "ShowSecretVersion" | "CreateSecret" | "CreateSecretVersion"
        );
        if decrypts && !self.rights.kms {
            let message = "The value cannot be obtained with the KMS key";
            return Err(reject(400, "CSMS.0401", message));
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        self.route.secret.as_deref().unwrap_or_default()
    }

    pub(super) fn item(&self) -> &str {
        self.route.item.as_deref().unwrap_or_default()
    }

    pub(super) fn secret_not_found(&self) -> ApiRejection {
        reject(
            self.not_found.as_u16(),
            "CSMS.0106",
            "The secret name does not exist",
        )
    }

    pub(super) fn secret<'s>(
        &self,
        secrets: &'s ProjectSecrets,
    ) -> Result<&'s EmulatedSecret, ApiRejection> {
        secrets
            .get(self.name())
            .ok_or_else(|| self.secret_not_found())
    }

    pub(super) fn secret_mut<'s>(
        &self,
        secrets: &'s mut ProjectSecrets,
    ) -> Result<&'s mut EmulatedSecret, ApiRejection> {
        secrets
            .get_mut(self.name())
            .ok_or_else(|| self.secret_not_found())
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiRejection> {
        serde_json::from_slice(self.body)
            .map_err(|_| reject(400, "CSMS.0004", "The request body is invalid"))
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.into_owned())
    }

    /// Query parameter `limit`: 1 to 1000, 50 by default.
    pub(super) fn limit(&self) -> Result<usize, ApiRejection> {
        let Some(text) = self.parameter("limit") else {
            return Ok(50);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .ok_or_else(|| reject(400, "CSMS.0002", "limit must be from 1 to 1000"))
    }
}

/// Rejects a call on a secret that is not enabled.
pub(super) fn ensure_enabled(secret: &EmulatedSecret) -> Result<(), ApiRejection> {
    match secret.state {
        SecretState::Enabled => Ok(()),
        SecretState::PendingDelete => {
            let message = "The secret is in scheduled deletion";
            Err(reject(400, "CSMS.0103", message))
        }
        SecretState::Disabled | SecretState::Frozen => {
            Err(reject(403, "CSMS.0109", "The secret is not enabled"))
        }
    }
}

/// The rule of [`valid_name`].
pub(super) const NAME_PATTERN: &str = "^[a-zA-Z0-9._-]{1,64}$";

/// Whether the name of a secret or stage matches [`NAME_PATTERN`] and can be a path segment.
pub(super) fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && ![".", ".."].contains(&name)
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The `page_info` object of a list. A marker is the first item of the page it refers to.
pub(super) fn page_info(next: Option<String>, previous: Option<String>, count: usize) -> Json {
    json!({"next_marker": next, "previous_marker": previous, "current_count": count})
}
