//! Operations on versions.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;

use super::call::{CsmsCall, NAME_PATTERN, ProjectSecrets, ensure_enabled, page_info, valid_name};
use crate::sim::huawei::config::LatestMeans;
use crate::sim::huawei::model::{CURRENT, EmulatedSecret, MAX_STAGES, StoredValue};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};
use crate::util::secret_bytes::SecretBytes;

/// Longest `secret_string` and `secret_binary` (as base64), in bytes.
const MAX_VALUE: usize = 32_768;

/// The value in a request: exactly one of the two fields is set.
#[derive(Deserialize)]
pub(super) struct NewValue {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

impl NewValue {
    pub(super) fn value(self) -> Result<StoredValue, ApiRejection> {
        let (length, value) = match (self.secret_string, self.secret_binary) {
            (Some(text), None) => (text.len(), Some(StoredValue::Text(text.into()))),
            (None, Some(base64)) => {
                let bytes = BASE64.decode(base64.as_bytes()).ok();
                let value = bytes.map(|bytes| StoredValue::Binary(SecretBytes::new(bytes)));
                (base64.len(), value)
            }
            _ => {
                let message = "exactly one of secret_string and secret_binary must be given";
                return Err(reject(400, "CSMS.0002", message));
            }
        };
        if length > MAX_VALUE {
            return Err(reject(
                400,
                "CSMS.0002",
                "the value is longer than 32768 bytes",
            ));
        }
        value.ok_or_else(|| reject(400, "CSMS.0002", "secret_binary is not base64"))
    }
}

#[derive(Deserialize)]
struct CreateVersionBody {
    version_stages: Option<Vec<String>>,
    expire_time: Option<i64>,
    #[serde(flatten)]
    value: NewValue,
}

pub(super) fn create_version(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let create: CreateVersionBody = call.parse()?;
    let value = create.value.value()?;
    let stages = create.version_stages.unwrap_or_default();
    if stages.iter().any(|stage| !valid_name(stage)) {
        let message = format!("a stage must match {NAME_PATTERN}");
        return Err(reject(400, "CSMS.0002", message));
    }
    let secret = call.secret_mut(secrets)?;
    ensure_enabled(secret)?;
    let number = secret.add_version(value, create.expire_time, &stages, call.now);
    if secret.stages.len() > MAX_STAGES {
        return Err(reject(400, "CSMS.0204", "Too many stages"));
    }
    let version = secret.versions.get(&number);
    let metadata = version.map(|version| secret.version_json(number, version));
    Ok(ApiReply::ok(json!({"version_metadata": metadata})))
}

/// Lists versions, oldest first. `marker` is the first version ID of the page.
pub(super) fn list_versions(
    call: &CsmsCall<'_>,
    secrets: &ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let limit = call.limit()?;
    let secret = call.secret(secrets)?;
    let first = match call.parameter("marker") {
        None => 0,
        Some(marker) => number(call, secret, &marker)?,
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
    Ok(ApiReply::ok(
        json!({"version_metadatas": page, "page_info": info}),
    ))
}

pub(super) fn show_version(
    call: &CsmsCall<'_>,
    secrets: &ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let secret = call.secret(secrets)?;
    ensure_enabled(secret)?;
    let number = number(call, secret, call.item())?;
    let version = secret.versions.get(&number).ok_or_else(version_not_found)?;
    let mut answer = json!({"version_metadata": secret.version_json(number, version)});
    match &version.value {
        StoredValue::Text(text) => answer["secret_string"] = text.expose_str().into(),
        StoredValue::Binary(bytes) => {
            answer["secret_binary"] = BASE64.encode(bytes.expose()).into()
        }
    }
    Ok(ApiReply::ok(json!({"version": answer})))
}

/// Version number of the ID `latest` or `vN`. The version may not exist.
pub(super) fn number(
    call: &CsmsCall<'_>,
    secret: &EmulatedSecret,
    id: &str,
) -> Result<u32, ApiRejection> {
    if id == "latest" {
        return match call.latest {
            LatestMeans::Newest => Ok(secret.newest()),
            LatestMeans::Syscurrent => {
                let current = secret.stages.get(CURRENT).ok_or_else(version_not_found)?;
                Ok(current.version)
            }
        };
    }
    let digits = id.strip_prefix('v').unwrap_or_default();
    let valid = (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !valid {
        return Err(reject(
            400,
            "CSMS.0002",
            "version_id must be latest or v1, v2, …",
        ));
    }
    digits.parse().map_err(|_| version_not_found())
}

pub(super) fn version_not_found() -> ApiRejection {
    reject(404, "CSMS.0205", "The secret version does not exist")
}
