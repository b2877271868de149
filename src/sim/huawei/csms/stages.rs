//! Operations on stages, the names that each point to one version.

use serde::Deserialize;
use serde_json::json;

use super::call::{CsmsCall, NAME_PATTERN, ProjectSecrets, ensure_enabled, valid_name};
use super::versions::{number, version_not_found};
use crate::sim::huawei::model::{CURRENT, MAX_STAGES, PREVIOUS};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

#[derive(Deserialize)]
struct UpdateStageBody {
    version_id: String,
}

pub(super) fn show_stage(
    call: &CsmsCall<'_>,
    secrets: &ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let secret = call.secret(secrets)?;
    let stage = secret.stages.get(call.item()).ok_or_else(stage_not_found)?;
    let stage = secret.stage_json(call.item(), stage);
    Ok(ApiReply::ok(json!({"stage": stage})))
}

pub(super) fn update_stage(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    let update: UpdateStageBody = call.parse()?;
    if !valid_name(call.item()) {
        let message = format!("a stage must match {NAME_PATTERN}");
        return Err(reject(400, "CSMS.0002", message));
    }
    let secret = call.secret_mut(secrets)?;
    ensure_enabled(secret)?;
    let version = number(call, secret, &update.version_id)?;
    if !secret.versions.contains_key(&version) {
        return Err(version_not_found());
    }
    secret.move_stage(call.item(), version, call.now);
    if secret.stages.len() > MAX_STAGES {
        return Err(reject(400, "CSMS.0204", "Too many stages"));
    }
    show_stage(call, secrets)
}

pub(super) fn delete_stage(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    if [CURRENT, PREVIOUS].contains(&call.item()) {
        return Err(reject(400, "CSMS.0105", "A system stage cannot be deleted"));
    }
    let secret = call.secret_mut(secrets)?;
    ensure_enabled(secret)?;
    secret
        .stages
        .remove(call.item())
        .ok_or_else(stage_not_found)?;
    Ok(ApiReply::empty(axum::http::StatusCode::NO_CONTENT))
}

fn stage_not_found() -> ApiRejection {
    reject(404, "CSMS.0206", "The secret stage does not exist")
}
