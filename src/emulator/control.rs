//! `/_emulator/…`: what tests and people tell the emulator, unsigned.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use axum::{Router, body::Bytes};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::cloud::Cloud;
use super::faults::Rule;
use super::model::State;

pub(super) fn router() -> Router<Arc<Cloud>> {
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
enum Rules {
    Many(Vec<Rule>),
    One(Box<Rule>),
}

#[derive(Deserialize)]
struct NewState {
    state: State,
}

#[derive(Deserialize)]
struct Offset {
    offset_seconds: i64,
}

async fn faults(Shared(cloud): Shared<Arc<Cloud>>) -> Response {
    Json(json!(cloud.lock().faults)).into_response()
}

async fn add_faults(Shared(cloud): Shared<Arc<Cloud>>, body: Bytes) -> Response {
    match take_faults(&cloud, &body) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => bad(&format!("not a fault rule, or a list of them: {error}")),
    }
}

/// Adds a rule, or a list of them.
pub(super) fn take_faults(cloud: &Cloud, rules: &[u8]) -> serde_json::Result<()> {
    match serde_json::from_slice(rules)? {
        Rules::Many(rules) => cloud.lock().faults.extend(rules),
        Rules::One(rule) => cloud.lock().faults.push(*rule),
    }
    Ok(())
}

async fn clear_faults(Shared(cloud): Shared<Arc<Cloud>>) -> StatusCode {
    cloud.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn calls(Shared(cloud): Shared<Arc<Cloud>>) -> Response {
    Json(json!(cloud.lock().calls)).into_response()
}

async fn clear_calls(Shared(cloud): Shared<Arc<Cloud>>) -> StatusCode {
    cloud.lock().calls = Default::default();
    StatusCode::NO_CONTENT
}

/// In every project that has a secret of the name.
async fn set_state(
    Shared(cloud): Shared<Arc<Cloud>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    let Ok(NewState { state }) = serde_json::from_slice(&body) else {
        return bad(
            "want {\"state\": \"ENABLED\" | \"DISABLED\" | \"FROZEN\" | \"PENDING_DELETE\"}",
        );
    };
    let mut inner = cloud.lock();
    let mut projects = inner.projects.clone();
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
    match cloud.keep(&mut inner, projects) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn set_clock(Shared(cloud): Shared<Arc<Cloud>>, body: Bytes) -> Response {
    let Ok(Offset { offset_seconds }) = serde_json::from_slice(&body) else {
        return bad("want {\"offset_seconds\": n}");
    };
    cloud.lock().offset = SignedDuration::from_secs(offset_seconds);
    StatusCode::NO_CONTENT.into_response()
}

fn bad(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}
