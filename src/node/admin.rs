//! `/livez`, `/readyz` and `/metrics` over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::time::timeout;

use super::readiness::Readiness;
use super::socket;
use crate::proto::VersionRequest;
use crate::telemetry::metrics::Metrics;

/// Limit of the health check.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct AdminPages {
    /// Printed by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Determines `/readyz`.
    pub readiness: Readiness,
    /// Called by `/livez`, as the driver calls it.
    pub socket: PathBuf,
}

/// The router of the pages.
pub fn router(admin: AdminPages) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// The process is live if it responds to `Version` on the driver's socket: without its socket, or with a
/// blocked runtime, it has to be restarted.
async fn livez(State(admin): State<AdminPages>) -> Response {
    match timeout(LIVENESS_TIMEOUT, version(admin.socket)).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(error)) => unavailable(format!("the provider's socket does not respond: {error}\n")),
        Err(_) => unavailable(format!(
            "timed out after {LIVENESS_TIMEOUT:?} on the provider's socket\n"
        )),
    }
}

async fn version(socket: PathBuf) -> Result<(), tonic::Status> {
    let request = VersionRequest {
        version: "v1alpha1".into(),
    };
    socket::client(&socket).version(request).await?;
    Ok(())
}

async fn readyz(State(admin): State<AdminPages>) -> Response {
    let awaited = admin.readiness.awaited();
    if awaited.is_empty() {
        "ok\n".into_response()
    } else {
        unavailable(format!("waiting for {}\n", awaited.join(", ")))
    }
}

async fn metrics(State(admin): State<AdminPages>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => unavailable(format!("cannot encode metrics: {error}\n")),
    }
}

fn unavailable(text: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
