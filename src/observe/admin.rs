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

use super::Readiness;
use super::metrics::Metrics;
use crate::proto::VersionRequest;
use crate::socket;

/// How long the provider may take to answer its own health check.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Printed by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Decides `/readyz`.
    pub readiness: Readiness,
    /// Asked by `/livez`, the way the driver asks.
    pub socket: PathBuf,
}

/// The pages.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Live is who answers `Version` on the driver's socket: a process whose socket is gone, or whose
/// runtime hangs, has to be restarted.
async fn livez(State(admin): State<Admin>) -> Response {
    match timeout(LIVE_WITHIN, version(admin.socket)).await {
        Ok(Ok(())) => "ok\n".into_response(),
        Ok(Err(error)) => unwell(format!("the provider's socket does not answer: {error}\n")),
        Err(_) => unwell(format!(
            "no answer on the provider's socket within {LIVE_WITHIN:?}\n"
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

async fn readyz(State(admin): State<Admin>) -> Response {
    let awaited = admin.readiness.awaited();
    if awaited.is_empty() {
        "ok\n".into_response()
    } else {
        unwell(format!("waiting for {}\n", awaited.join(", ")))
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => unwell(format!("metrics cannot be written: {error}\n")),
    }
}

fn unwell(text: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
