//! The operations of the CSMS v1 API.

mod call;
mod secrets;
mod stages;
mod versions;

use serde_json::json;

use super::reply::{ApiRejection, ApiReply, reject};
pub(super) use call::CsmsCall;
use call::ProjectSecrets;

/// Executes the call. If it is rejected, `secrets` may be partly changed and must be discarded.
pub(super) fn execute(
    call: &CsmsCall<'_>,
    secrets: &mut ProjectSecrets,
) -> Result<ApiReply, ApiRejection> {
    call.authorize()?;
    secrets.retain(|_, one| one.scheduled_delete_time.is_none_or(|at| at > call.now));
    match call.route.operation {
        "CreateSecret" => secrets::create_secret(call, secrets),
        "ListSecrets" => secrets::list_secrets(call, secrets),
        "ShowSecret" => Ok(ApiReply::ok(
            json!({"secret": call.secret(secrets)?.json()}),
        )),
        "UpdateSecret" => secrets::update_secret(call, secrets),
        "DeleteSecret" => secrets::delete_secret(call, secrets),
        "DeleteSecretForSchedule" => secrets::schedule_deletion(call, secrets),
        "RestoreSecret" => secrets::cancel_deletion(call, secrets),
        "CreateSecretVersion" => versions::create_version(call, secrets),
        "ListSecretVersions" => versions::list_versions(call, secrets),
        "ShowSecretVersion" => versions::show_version(call, secrets),
        "ShowSecretStage" => stages::show_stage(call, secrets),
        "UpdateSecretStage" => stages::update_stage(call, secrets),
        "DeleteSecretStage" => stages::delete_stage(call, secrets),
        _ => Err(reject(404, "APIG.0101", "The API does not exist")),
    }
}
