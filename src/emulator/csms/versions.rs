//! Versions: create, list, read.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;

use super::{Call, Secrets, page_info, usable, valid_name};
use crate::emulator::answer::{Answer, Refused, refuse};
use crate::emulator::config::LatestMeans;
use crate::emulator::model::{CURRENT, MAX_STAGES, Secret, Value};
use crate::secret::SecretBytes;

/// Longest `secret_string`, and longest `secret_binary` as base64 text.
const MAX_VALUE: usize = 32_768;

/// The value in a request: exactly one of the two.
#[derive(Deserialize)]
pub(super) struct NewValue {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

impl NewValue {
    pub(super) fn value(self) -> Result<Value, Refused> {
        let (length, value) = match (self.secret_string, self.secret_binary) {
            (Some(text), None) => (text.len(), Some(Value::Text(text.into()))),
            (None, Some(base64)) => {
                let bytes = BASE64.decode(base64.as_bytes()).ok();
                let value = bytes.map(|bytes| Value::Binary(SecretBytes::new(bytes)));
                (base64.len(), value)
            }
            _ => {
                let message = "exactly one of secret_string and secret_binary must be given";
                return Err(refuse(400, "CSMS.0002", message));
            }
        };
        if length > MAX_VALUE {
            return Err(refuse(
                400,
                "CSMS.0002",
                "the value is longer than 32768 bytes",
            ));
        }
        value.ok_or_else(|| refuse(400, "CSMS.0002", "secret_binary is not base64"))
    }
}

#[derive(Deserialize)]
struct Create {
    version_stages: Option<Vec<String>>,
    expire_time: Option<i64>,
    #[serde(flatten)]
    value: NewValue,
}

impl Call<'_> {
    pub(super) fn create_version(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let create: Create = self.parse()?;
        let value = create.value.value()?;
        let stages = create.version_stages.unwrap_or_default();
        if stages.iter().any(|stage| !valid_name(stage)) {
            let message = "a stage must match ^[a-zA-Z0-9_-]{1,64}$";
            return Err(refuse(400, "CSMS.0002", message));
        }
        let secret = self.secret_mut(secrets)?;
        usable(secret)?;
        let number = secret.add_version(value, create.expire_time, &stages, self.now);
        if secret.stages.len() > MAX_STAGES {
            return Err(refuse(400, "CSMS.0204", "Too many stages"));
        }
        let version = secret.versions.get(&number);
        let metadata = version.map(|version| secret.version_json(number, version));
        Ok(Answer::ok(json!({"version_metadata": metadata})))
    }

    /// From the oldest to the newest. `marker` is the first version id of the page.
    pub(super) fn list_versions(&self, secrets: &Secrets) -> Result<Answer, Refused> {
        let limit = self.limit()?;
        let secret = self.secret(secrets)?;
        let first = match self.parameter("marker") {
            None => 0,
            Some(marker) => self.number(secret, &marker)?,
        };
        let mut rest = secret.versions.range(first..);
        let page: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|(number, version)| secret.version_json(*number, version))
            .collect();
        let id = |number: &u32| format!("v{number}");
        let next = rest.next().map(|(number, _)| id(number));
        let previous = secret.versions.range(..first).rev().take(limit).last();
        let info = page_info(next, previous.map(|(number, _)| id(number)), page.len());
        Ok(Answer::ok(
            json!({"version_metadatas": page, "page_info": info}),
        ))
    }

    pub(super) fn show_version(&self, secrets: &Secrets) -> Result<Answer, Refused> {
        let secret = self.secret(secrets)?;
        usable(secret)?;
        let number = self.number(secret, self.item())?;
        let version = secret.versions.get(&number).ok_or_else(no_version)?;
        let mut answer = json!({"version_metadata": secret.version_json(number, version)});
        match &version.value {
            Value::Text(text) => answer["secret_string"] = text.expose_str().into(),
            Value::Binary(bytes) => answer["secret_binary"] = BASE64.encode(bytes.expose()).into(),
        }
        Ok(Answer::ok(json!({"version": answer})))
    }

    /// The number behind `latest` or `vN`, whether or not that version exists.
    pub(super) fn number(&self, secret: &Secret, id: &str) -> Result<u32, Refused> {
        if id == "latest" {
            return match self.latest {
                LatestMeans::Newest => Ok(secret.newest()),
                LatestMeans::Syscurrent => {
                    let current = secret.stages.get(CURRENT).ok_or_else(no_version)?;
                    Ok(current.version)
                }
            };
        }
        let digits = id.strip_prefix('v').unwrap_or_default();
        let valid = (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        if !valid {
            return Err(refuse(
                400,
                "CSMS.0002",
                "a version id is v1, v2, … or latest",
            ));
        }
        digits.parse().map_err(|_| no_version())
    }
}

pub(super) fn no_version() -> Refused {
    refuse(404, "CSMS.0205", "The secret version does not exist")
}
