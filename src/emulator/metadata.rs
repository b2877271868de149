//! The metadata service of an ECS server: session tokens, temporary keys, region and project.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::cloud::Cloud;
use super::config::TokenMode;

/// Documented life of temporary keys, and the age at which new ones are given out: both sets are
/// valid for the rest.
const KEYS_LIVE: SignedDuration = SignedDuration::from_hours(24);
const KEYS_LEFT: SignedDuration = SignedDuration::from_hours(6);

const NO_AGENCY: &str = "Please configure Cloud Service Agency first";

/// `PUT /meta-data/latest/api/token`
pub(super) async fn token(State(cloud): State<Arc<Cloud>>, headers: HeaderMap) -> Response {
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
    let mut inner = cloud.lock();
    let expires = cloud.now(&inner) + SignedDuration::from_secs(seconds);
    inner.metadata_tokens.insert(token.clone(), expires);
    token.into_response()
}

/// `GET /openstack/latest/securitykey`
pub(super) async fn security_key(State(cloud): State<Arc<Cloud>>, headers: HeaderMap) -> Response {
    let mut inner = cloud.lock();
    let now = cloud.now(&inner);
    if !cloud.token_is_good(&inner.metadata_tokens, &headers, now) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !cloud.config.agency || cloud.config.accounts.is_empty() {
        return (StatusCode::UNAUTHORIZED, NO_AGENCY).into_response();
    }
    let held = inner.agency_keys.take();
    let held = held.filter(|keys| now.duration_until(keys.expires) > KEYS_LEFT);
    let keys = held.unwrap_or_else(|| inner.guard.issue(0, now + KEYS_LIVE));
    let answer = Json(json!({"credential": {
        "access": keys.access_key,
        "secret": keys.secret_key.expose_str(),
        "securitytoken": keys.token.expose_str(),
        "expires_at": keys.expires.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    }}));
    inner.agency_keys = Some(keys);
    answer.into_response()
}

/// `GET /openstack/latest/meta_data.json`
pub(super) async fn meta_data(State(cloud): State<Arc<Cloud>>, headers: HeaderMap) -> Response {
    let inner = cloud.lock();
    if !cloud.token_is_good(&inner.metadata_tokens, &headers, cloud.now(&inner)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let region = &cloud.config.region;
    let account = cloud.config.accounts.first();
    let project = account.and_then(|account| account.projects.get(region));
    Json(json!({"region_id": region, "project_id": project, "name": "emulator"})).into_response()
}

impl Cloud {
    fn token_is_good(
        &self,
        tokens: &std::collections::BTreeMap<String, Timestamp>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> bool {
        let mode = self.config.metadata_token;
        match headers.get("x-metadata-token").map(|value| value.to_str()) {
            None => mode != TokenMode::Required,
            Some(_) if mode == TokenMode::Off => true,
            Some(token) => token
                .ok()
                .and_then(|token| tokens.get(token))
                .is_some_and(|expires| *expires > now),
        }
    }
}
