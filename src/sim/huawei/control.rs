//! The unsigned control paths below `/_emulator/`. See [`crate::sim::huawei`].

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use axum::{Router, body::Bytes};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::cloud::EmulatedCloud;
use super::faults::FaultRule;
use super::model::SecretState;

pub(super) fn router() -> Router<Arc<EmulatedCloud>> {
    Router::new()
        .route(
            "/_emulator/faults",
            get(faults).post(add_faults).delete(clear_faults),
        )
        .route("/_emulator/calls", get(calls).delete(clear_calls))
        .route("/_emulator/secrets/{name}/state", put(set_state))
        .route("/_emulator/clock", put(set_clock))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FaultRules {
    Many(Vec<FaultRule>),
    One(Box<FaultRule>),
}

#[derive(Deserialize)]
struct SecretStateBody {
    state: SecretState,
}

#[derive(Deserialize)]
struct ClockBody {
    offset_seconds: i64,
}

async fn faults(State(cloud): State<Arc<EmulatedCloud>>) -> Response {
    Json(json!(cloud.lock().faults)).into_response()
}

async fn add_faults(State(cloud): State<Arc<EmulatedCloud>>, body: Bytes) -> Response {
    match add_fault_rules(&cloud, &body) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => bad_request(&format!(
            "want a fault rule or a list of fault rules: {error}"
        )),
    }
}

/// Adds a rule or a list of rules, given as JSON.
pub(super) fn add_fault_rules(cloud: &EmulatedCloud, rules: &[u8]) -> serde_json::Result<()> {
    match serde_json::from_slice(rules)? {
        FaultRules::Many(rules) => cloud.lock().faults.extend(rules),
        FaultRules::One(rule) => cloud.lock().faults.push(*rule),
    }
    Ok(())
}

async fn clear_faults(State(cloud): State<Arc<EmulatedCloud>>) -> StatusCode {
    cloud.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn calls(State(cloud): State<Arc<EmulatedCloud>>) -> Response {
    Json(json!(cloud.lock().calls)).into_response()
}

async fn clear_calls(State(cloud): State<Arc<EmulatedCloud>>) -> StatusCode {
    cloud.lock().calls = Default::default();
    StatusCode::NO_CONTENT
}

/// Sets the state of the secret in every project that has one with this name.
async fn set_state(
    State(cloud): State<Arc<EmulatedCloud>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(SecretStateBody { state }) = serde_json::from_slice(&body) else {
        return bad_request(
            "want {\"state\": \"ENABLED\" | \"DISABLED\" | \"FROZEN\" | \"PENDING_DELETE\"}",
        );
    };
    let mut locked = cloud.lock();
    let mut projects = locked.projects.clone();
    let mut found = false;
    for secret in projects
        .values_mut()
        .filter_map(|secrets| secrets.get_mut(&name))
    {
        secret.state = state;
        secret.scheduled_delete_time = None;
        found = true;
    }
    if !found {
        return (StatusCode::NOT_FOUND, "no such secret\n").into_response();
    }
    match cloud.commit(&mut locked, projects) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn set_clock(State(cloud): State<Arc<EmulatedCloud>>, body: Bytes) -> Response {
    let Ok(ClockBody { offset_seconds }) = serde_json::from_slice(&body) else {
        return bad_request("want {\"offset_seconds\": n}");
    };
    cloud.lock().offset = SignedDuration::from_secs(offset_seconds);
    StatusCode::NO_CONTENT.into_response()
}

fn bad_request(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}
