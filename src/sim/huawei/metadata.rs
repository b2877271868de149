//! The metadata service of an ECS server: session tokens, temporary keys, region and project ID.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::cloud::EmulatedCloud;
use super::config::TokenMode;
use super::faults::take_metadata_fault;

/// Documented lifetime of temporary keys.
const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// New keys are issued this long before the old ones expire; until then, both are valid.
const RENEW_BEFORE_EXPIRY: SignedDuration = SignedDuration::from_hours(6);

const NO_AGENCY: &str = "Please configure Cloud Service Agency first";

/// `PUT /meta-data/latest/api/token`
pub(super) async fn token(State(cloud): State<Arc<EmulatedCloud>>, headers: HeaderMap) -> Response {
    let fault = take_metadata_fault(&mut cloud.lock().faults, "PutMetadataToken");
    let response = issue_token(&cloud, &headers);
    match fault {
        Some(fault) => fault.apply_to_metadata(response).await,
        None => response,
    }
}

fn issue_token(cloud: &EmulatedCloud, headers: &HeaderMap) -> Response {
    if cloud.config.metadata_token == TokenMode::Off {
        return StatusCode::NOT_FOUND.into_response();
    }
    let seconds = headers
        .get("x-metadata-token-ttl-seconds")
        .and_then(|value| value.to_str().ok()?.parse::<i64>().ok())
        .filter(|seconds| (1..=21_600).contains(seconds));
    let Some(seconds) = seconds else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let token = format!("{:032x}", fastrand::u128(..));
    let mut state = cloud.lock();
    let expires = cloud.now(&state) + SignedDuration::from_secs(seconds);
    state.metadata_tokens.insert(token.clone(), expires);
    token.into_response()
}

/// `GET /openstack/latest/securitykey`
pub(super) async fn security_key(
    State(cloud): State<Arc<EmulatedCloud>>,
    headers: HeaderMap,
) -> Response {
    let fault = take_metadata_fault(&mut cloud.lock().faults, "GetSecurityKey");
    let response = issue_keys(&cloud, &headers);
    match fault {
        Some(fault) => fault.apply_to_metadata(response).await,
        None => response,
    }
}

fn issue_keys(cloud: &EmulatedCloud, headers: &HeaderMap) -> Response {
    let mut state = cloud.lock();
    let now = cloud.now(&state);
    if !has_valid_token(cloud, &state.metadata_tokens, headers, now) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !cloud.config.agency || cloud.config.accounts.is_empty() {
        return (StatusCode::UNAUTHORIZED, NO_AGENCY).into_response();
    }
    let current = state.agency_keys.take();
    let current = current.filter(|keys| now.duration_until(keys.expires) > RENEW_BEFORE_EXPIRY);
    let keys = current.unwrap_or_else(|| state.verifier.issue(0, now + KEY_LIFETIME));
    let answer = Json(json!({"credential": {
        "access": keys.access_key,
        "secret": keys.secret_key.expose_str(),
        "securitytoken": keys.token.expose_str(),
        "expires_at": keys.expires.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    }}));
    state.agency_keys = Some(keys);
    answer.into_response()
}

/// `GET /openstack/latest/meta_data.json`
pub(super) async fn meta_data(
    State(cloud): State<Arc<EmulatedCloud>>,
    headers: HeaderMap,
) -> Response {
    let state = cloud.lock();
    if !has_valid_token(&cloud, &state.metadata_tokens, &headers, cloud.now(&state)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let region = &cloud.config.region;
    let account = cloud.config.accounts.first();
    let project = account.and_then(|account| account.projects.get(region));
    Json(json!({"region_id": region, "project_id": project, "name": "emulator"})).into_response()
}

fn has_valid_token(
    cloud: &EmulatedCloud,
    tokens: &std::collections::BTreeMap<String, Timestamp>,
    headers: &HeaderMap,
    now: Timestamp,
) -> bool {
    let mode = cloud.config.metadata_token;
    match headers.get("x-metadata-token").map(|value| value.to_str()) {
        None => mode != TokenMode::Required,
        Some(_) if mode == TokenMode::Off => true,
        Some(token) => token
            .ok()
            .and_then(|token| tokens.get(token))
            .is_some_and(|expires| *expires > now),
    }
}
