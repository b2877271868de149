//! Operations on keys themselves.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::call::{KmsCall, find, find_mut, number, pending_deletion};
use super::material::KeySpec;
use super::model::{EmulatedKey, KeyStatusCode, KeyUsage, ProjectKeys};
use crate::sim::huawei::model::uuid;
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

/// Most keys of a project.
const MAX_KEYS: usize = 100;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Deserialize)]
struct CreateKeyBody {
    key_alias: String,
    key_spec: Option<String>,
    key_usage: Option<String>,
    key_description: Option<String>,
    origin: Option<String>,
}

#[derive(Deserialize)]
struct ListKeysBody {
    limit: Option<String>,
    marker: Option<String>,
    key_state: Option<String>,
    key_spec: Option<String>,
}

#[derive(Deserialize)]
struct OneKeyBody {
    key_id: String,
}

#[derive(Deserialize)]
struct ScheduleKeyDeletionBody {
    key_id: String,
    pending_days: String,
}

/// The kind of key that the body of CreateKey asks for, if it is emulated.
pub(super) fn spec(body: &[u8]) -> Option<KeySpec> {
    let create: CreateKeyBody = serde_json::from_slice(body).ok()?;
    let name = create.key_spec.unwrap_or_else(|| KeySpec::Aes256.name());
    KeySpec::ALL.into_iter().find(|spec| spec.name() == name)
}

pub(super) fn create(call: KmsCall<'_>, keys: &mut ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let create: CreateKeyBody = call.parse()?;
    let invalid = |text: String| reject(400, "KMS.0308", text);
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":/_-".contains(&byte);
    let alias = create.key_alias;
    if !(1..=255).contains(&alias.len()) || !alias.bytes().all(is_valid) {
        let text = "key_alias must match ^[a-zA-Z0-9:/_-]{1,255}$";
        return Err(invalid(text.to_owned()));
    }
    if create.origin.is_some_and(|origin| origin != "kms") {
        return Err(invalid("only origin kms is emulated".to_owned()));
    }
    let description = create.key_description.unwrap_or_default();
    if description.chars().count() > 255 {
        return Err(invalid(
            "key_description is longer than 255 characters".to_owned(),
        ));
    }
    let Some(material) = call.material else {
        let asked: String = create
            .key_spec
            .unwrap_or_default()
            .chars()
            .take(32)
            .collect();
        let names = KeySpec::ALL.map(KeySpec::name).join(", ");
        let text = format!("key_spec {asked} is not emulated; these are: {names}");
        return Err(invalid(text));
    };
    let spec = material.spec();
    let usage = match (create.key_usage.as_deref(), spec) {
        (None | Some("ENCRYPT_DECRYPT"), KeySpec::Aes256)
        | (Some("ENCRYPT_DECRYPT"), KeySpec::Rsa(_)) => KeyUsage::EncryptDecrypt,
        (None | Some("SIGN_VERIFY"), KeySpec::Rsa(_) | KeySpec::EcP256 | KeySpec::EcP384) => {
            KeyUsage::SignVerify
        }
        _ => {
            let text = format!("key_usage does not fit key_spec {}", spec.name());
            return Err(invalid(text));
        }
    };
    if keys.len() >= MAX_KEYS {
        return Err(reject(400, "KMS.1101", "Too many keys"));
    }
    let key = EmulatedKey {
        id: uuid(),
        alias,
        description,
        region: call.region.to_owned(),
        usage,
        state: KeyStatusCode::Enabled,
        create_time: call.now,
        deletion_time: None,
        material: Arc::new(material),
    };
    let info = key.json();
    let answer = json!({"key_info": {"key_id": info["key_id"], "domain_id": info["domain_id"]}});
    keys.insert(key.id.clone(), key);
    Ok(ApiReply::ok(answer))
}

/// Lists keys in the order of their IDs. A marker is the number of keys before the page.
pub(super) fn list(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let list: ListKeysBody = call.parse()?;
    let limit = list.limit.as_deref().map_or(Some(1000), number);
    let limit = limit.filter(|limit| (1..=1000).contains(limit));
    let limit = limit.ok_or_else(|| reject(400, "KMS.1601", "limit is invalid"))?;
    let first = list.marker.as_deref().filter(|marker| !marker.is_empty());
    let first = first.map_or(Some(0), number);
    let first = first.ok_or_else(|| reject(400, "KMS.1602", "marker is invalid"))?;
    let spec = list.key_spec.as_deref().unwrap_or("AES_256");
    let state = list.key_state.as_deref().filter(|state| !state.is_empty());
    let is_listed = |key: &&EmulatedKey| {
        (spec == "ALL" || key.material.spec().name() == spec)
            && state.is_none_or(|state| key.state.text() == state)
    };
    let listed: Vec<_> = keys.values().filter(is_listed).collect();
    let page: Vec<_> = listed.iter().skip(first).take(limit).collect();
    let next = first.saturating_add(page.len());
    let is_truncated = next < listed.len();
    Ok(ApiReply::ok(json!({
        "keys": page.iter().map(|key| &key.id).collect::<Vec<_>>(),
        "key_details": page.iter().map(|key| key.json()).collect::<Vec<_>>(),
        "next_marker": if is_truncated { next.to_string() } else { String::new() },
        "truncated": is_truncated.to_string(),
        "total": listed.len(),
    })))
}

pub(super) fn describe(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let one: OneKeyBody = call.parse()?;
    let key = find(keys, &one.key_id)?;
    Ok(ApiReply::ok(json!({"key_info": key.json()})))
}

pub(super) fn enable(call: &KmsCall<'_>, keys: &mut ProjectKeys) -> Result<ApiReply, ApiRejection> {
    switch(call, keys, KeyStatusCode::Enabled)
}

pub(super) fn disable(
    call: &KmsCall<'_>,
    keys: &mut ProjectKeys,
) -> Result<ApiReply, ApiRejection> {
    switch(call, keys, KeyStatusCode::Disabled)
}

fn switch(
    call: &KmsCall<'_>,
    keys: &mut ProjectKeys,
    state: KeyStatusCode,
) -> Result<ApiReply, ApiRejection> {
    let one: OneKeyBody = call.parse()?;
    let key = find_mut(keys, &one.key_id)?;
    if key.state == KeyStatusCode::PendingDeletion {
        return Err(pending_deletion());
    }
    key.state = state;
    Ok(ApiReply::ok(json!({"key_info": key.status()})))
}

pub(super) fn schedule_deletion(
    call: &KmsCall<'_>,
    keys: &mut ProjectKeys,
) -> Result<ApiReply, ApiRejection> {
    let schedule: ScheduleKeyDeletionBody = call.parse()?;
    let days = number(&schedule.pending_days).filter(|days| (7..=1096).contains(days));
    let days = days.and_then(|days| i64::try_from(days).ok());
    let days = days.ok_or_else(|| reject(400, "KMS.0308", "pending_days must be 7 to 1096"))?;
    let key = find_mut(keys, &schedule.key_id)?;
    if key.state == KeyStatusCode::PendingDeletion {
        return Err(pending_deletion());
    }
    key.state = KeyStatusCode::PendingDeletion;
    key.deletion_time = Some(call.now + days * DAY_MS);
    Ok(ApiReply::ok(key.status()))
}

pub(super) fn cancel_deletion(
    call: &KmsCall<'_>,
    keys: &mut ProjectKeys,
) -> Result<ApiReply, ApiRejection> {
    let one: OneKeyBody = call.parse()?;
    let key = find_mut(keys, &one.key_id)?;
    if key.state != KeyStatusCode::PendingDeletion {
        let text = "The key is not scheduled for deletion";
        return Err(reject(400, "KMS.0308", text));
    }
    key.state = KeyStatusCode::Disabled;
    key.deletion_time = None;
    Ok(ApiReply::ok(key.status()))
}
