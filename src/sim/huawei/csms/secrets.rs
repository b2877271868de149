//! Operations on secrets.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::call::{CsmsCall, NAME_PATTERN, ProjectSecrets, ensure_enabled, page_info, valid_name};
use super::versions::NewValue;
use crate::sim::huawei::model::{EmulatedSecret, SecretState, uuid};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

/// Most secrets of a project.
const MAX_SECRETS: usize = 200;
const MAX_DESCRIPTION: usize = 2048;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Deserialize)]
struct CreateSecretBody {
    name: String,
    kms_key_id: Option<String>,
    description: Option<String>,
    secret_type: Option<String>,
    #[serde(flatten)]
    value: NewValue,
}

#[derive(Deserialize)]
struct UpdateSecretBody {
    description: Option<String>,
    kms_key_id: Option<String>,
}

#[derive(Deserialize)]
struct ScheduleDeletionBody {
    recovery_window_in_days: i64,
}

pub(super) fn create_secret(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let create: CreateSecretBody = call.parse()?;
    if !valid_name(&create.name) {
        return Err(reject(
            400,
            "CSMS.0002",
            format!("name must match {NAME_PATTERN}"),
        ));
    }
    if create.secret_type.is_some_and(|kind| kind != "COMMON") {
        return Err(reject(
            400,
            "CSMS.0002",
            "only secret_type COMMON is emulated",
        ));
    }
    check_description(create.description.as_deref())?;
    if secrets.contains_key(&create.name) {
        return Err(reject(409, "CSMS.0101", "The secret name already exists"));
    }
    if secrets.len() >= MAX_SECRETS {
        return Err(reject(400, "CSMS.0202", "Too many secrets"));
    }
    let mut secret = EmulatedSecret {
        id: uuid(),
        name: create.name.clone(),
        state: SecretState::Enabled,
        kms_key_id: create.kms_key_id.unwrap_or_else(uuid),
        description: create.description,
        create_time: call.now,
        update_time: call.now,
        scheduled_delete_time: None,
        versions: BTreeMap::new(),
        stages: BTreeMap::new(),
    };
    secret.add_version(create.value.value()?, None, &[], call.now);
    let answer = json!({"secret": secret.json()});
    secrets.insert(create.name, secret);
    Ok(ApiReply::ok(answer))
}

/// Lists secrets by name. `marker` is the first name of the page.
pub(super) fn list_secrets(
    call: &CsmsCall<'_>,
    secrets: &ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let limit = call.limit()?;
    let marker = call.parameter("marker").unwrap_or_default();
    let mut rest = secrets.range(marker.clone()..);
    let page: Vec<_> = rest
        .by_ref()
        .take(limit)
        .map(|(_, one)| one.json())
        .collect();
    let next = rest.next().map(|(name, _)| name.clone());
    let previous = secrets.range(..marker).rev().take(limit).last();
    let previous = previous.map(|(name, _)| name.clone());
    let info = page_info(next, previous, page.len());
    Ok(ApiReply::ok(json!({"secrets": page, "page_info": info})))
}

pub(super) fn update_secret(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let update: UpdateSecretBody = call.parse()?;
    check_description(update.description.as_deref())?;
    let secret = call.secret_mut(secrets)?;
    ensure_enabled(secret)?;
    secret.description = update.description.or(secret.description.take());
    if let Some(key) = update.kms_key_id {
        secret.kms_key_id = key;
    }
    secret.update_time = call.now;
    Ok(ApiReply::ok(json!({"secret": secret.json()})))
}

pub(super) fn delete_secret(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    secrets
        .remove(call.name())
        .ok_or_else(|| call.secret_not_found())?;
    Ok(ApiReply::empty(call.delete_status))
}

pub(super) fn schedule_deletion(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let days = call
        .parse::<ScheduleDeletionBody>()?
        .recovery_window_in_days;
    if !(7..=30).contains(&days) {
        let message = "recovery_window_in_days must be from 7 to 30";
        return Err(reject(400, "CSMS.0002", message));
    }
    let secret = call.secret_mut(secrets)?;
    if secret.state == SecretState::PendingDelete {
        let message = "The secret is already scheduled for deletion";
        return Err(reject(400, "CSMS.0107", message));
    }
    secret.state = SecretState::PendingDelete;
    secret.scheduled_delete_time = Some(call.now + days * DAY_MS);
    Ok(ApiReply::ok(json!({"secret": secret.json()})))
}

pub(super) fn cancel_deletion(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let secret = call.secret_mut(secrets)?;
    if secret.state != SecretState::PendingDelete {
        let message = "The secret is not scheduled for deletion";
        return Err(reject(400, "CSMS.0108", message));
    }
    secret.state = SecretState::Enabled;
    secret.scheduled_delete_time = None;
    Ok(ApiReply::ok(json!({"secret": secret.json()})))
}

fn check_description(text: Option<&str>) -> Result<(), ApiRejection> {
    match text {
        Some(text) if text.len() > MAX_DESCRIPTION => Err(reject(
            400,
            "CSMS.0002",
            "description is longer than 2048 bytes",
        )),
        _ => Ok(()),
    }
}
