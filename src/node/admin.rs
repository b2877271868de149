//! `/livez`, `/readyz` and `/metrics` over HTTP.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::readiness::Readiness;
use super::socket;
use crate::proto::VersionRequest;
use crate::telemetry::metrics::Metrics;

/// Limit of the health check.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are kept open. Any pod that can reach the port may open more: then the oldest one is closed,
/// so that a probe of kubelet, which takes milliseconds, always gets through.
const MAX_CONNECTIONS: usize = 64;
/// Limit for the header of a request, also of the next one on an open connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest header, in bytes; hyper accepts no smaller limit.
const MAX_HEADER: usize = 8 * 1024;
/// Wait after a failed accept, such as without free file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

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

/// Serves the pages until the future is dropped.
pub async fn serve(listener: TcpListener, pages: AdminPages) {
    let service = TowerToHyperService::new(router(pages));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER);
    // Dropping the set ends the connections.
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        open.push_back(tasks.spawn(async move {
            // The client's mistake, or its end.
            let _ = connection.await;
        }));
    }
}

fn router(admin: AdminPages) -> Router {
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
