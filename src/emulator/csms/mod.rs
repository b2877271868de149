//! The calls of CSMS v1.

mod secrets;
mod stages;
mod versions;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::answer::{Answer, Refused, refuse};
use super::config::{LatestMeans, Rights};
use super::model::{Secret, State};
use super::route::Route;

/// One call on the secrets of one project.
pub(super) struct Call<'a> {
    pub(super) route: &'a Route,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
    pub(super) rights: Rights,
    /// Milliseconds since 1970.
    pub(super) now: i64,
    pub(super) latest: LatestMeans,
    pub(super) not_found: StatusCode,
    pub(super) delete_status: StatusCode,
}

type Secrets = BTreeMap<String, Secret>;

impl Call<'_> {
    /// Makes the call. After a refusal `secrets` may be half changed: the caller drops it.
    pub(super) fn make(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        self.authorize()?;
        secrets.retain(|_, one| one.scheduled_delete_time.is_none_or(|at| at > self.now));
        match self.route.operation {
            "CreateSecret" => self.create_secret(secrets),
            "ListSecrets" => self.list_secrets(secrets),
            "ShowSecret" => Ok(Answer::ok(json!({"secret": self.secret(secrets)?.json()}))),
            "UpdateSecret" => self.update_secret(secrets),
            "DeleteSecret" => self.delete_secret(secrets),
            "DeleteSecretForSchedule" => self.schedule_deletion(secrets),
            "RestoreSecret" => self.cancel_deletion(secrets),
            "CreateSecretVersion" => self.create_version(secrets),
            "ListSecretVersions" => self.list_versions(secrets),
            "ShowSecretVersion" => self.show_version(secrets),
            "ShowSecretStage" => self.show_stage(secrets),
            "UpdateSecretStage" => self.update_stage(secrets),
            "DeleteSecretStage" => self.delete_stage(secrets),
            _ => Err(refuse(404, "APIG.0101", "The API does not exist")),
        }
    }

    fn authorize(&self) -> Result<(), Refused> {
        let operation = self.route.operation;
        let allowed = if operation.starts_with("List") {
            self.rights.list
        } else if operation.starts_with("Show") {
            self.rights.read
        } else {
            self.rights.write
        };
        if !allowed {
            return Err(refuse(403, "CSMS.0302", "No permission for this operation"));
        }
        let decrypts = matches!(
            operation,
            "ShowSecretVersion" | "CreateSecret" | "CreateSecretVersion"
        );
        if decrypts && !self.rights.kms {
            let message = "The value cannot be obtained with the KMS key";
            return Err(refuse(400, "CSMS.0401", message));
        }
        Ok(())
    }

    fn name(&self) -> &str {
        self.route.secret.as_deref().unwrap_or_default()
    }

    fn item(&self) -> &str {
        self.route.item.as_deref().unwrap_or_default()
    }

    fn missing(&self) -> Refused {
        refuse(
            self.not_found.as_u16(),
            "CSMS.0106",
            "The secret name does not exist",
        )
    }

    fn secret<'s>(&self, secrets: &'s Secrets) -> Result<&'s Secret, Refused> {
        secrets.get(self.name()).ok_or_else(|| self.missing())
    }

    fn secret_mut<'s>(&self, secrets: &'s mut Secrets) -> Result<&'s mut Secret, Refused> {
        secrets.get_mut(self.name()).ok_or_else(|| self.missing())
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        serde_json::from_slice(self.body)
            .map_err(|_| refuse(400, "CSMS.0004", "The request body is invalid"))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.into_owned())
    }

    /// `limit`: 1 to 1000, 50 where not given.
    fn limit(&self) -> Result<usize, Refused> {
        let Some(text) = self.parameter("limit") else {
            return Ok(50);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .ok_or_else(|| refuse(400, "CSMS.0002", "limit must be from 1 to 1000"))
    }
}

/// Only an enabled secret is read or changed.
fn usable(secret: &Secret) -> Result<(), Refused> {
    match secret.state {
        State::Enabled => Ok(()),
        State::PendingDelete => {
            let message = "The secret is in scheduled deletion";
            Err(refuse(400, "CSMS.0103", message))
        }
        State::Disabled | State::Frozen => {
            Err(refuse(403, "CSMS.0109", "The secret is not enabled"))
        }
    }
}

/// `[a-zA-Z0-9_-]{1,64}`, for secrets and stages.
fn valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// `page_info`. A marker names the first item of its page.
fn page_info(next: Option<String>, previous: Option<String>, count: usize) -> Json {
    json!({"next_marker": next, "previous_marker": previous, "current_count": count})
}
