//! HTTP exchanges: connections, bodies, and what is counted and logged of each.
//!
//! Knows neither credentials nor APIs.

pub(super) mod body;
pub(super) mod connect;
mod failure;
mod no_proxy;
mod proxy;

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::error::ErrorKind;
use super::response::{ApiResponse, AttemptError};
use super::retry::Retryability;
use crate::telemetry::metrics::{CallLabels, CloudMetrics, OperationLabels};
use connect::{Connector, Connectors};

type HttpClient = Client<Connector, Full<Bytes>>;

/// How a request reaches the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// To the cloud, through the proxy of the environment if there is one.
    Cloud,
    /// To the metadata service, which no proxy can reach.
    Direct,
}

/// One attempt of a call, for metrics and logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) operation: &'static str,
    /// Host and port.
    pub(super) host: &'a str,
    /// From 1.
    pub(super) number: u32,
}

/// The connections of one client.
pub(super) struct Transport {
    cloud: HttpClient,
    direct: HttpClient,
    metrics: CloudMetrics,
}

impl Transport {
    pub(super) fn new(connectors: Connectors, metrics: CloudMetrics) -> Self {
        let client = |connector| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(50))
                // A connection whose peer is gone must not use up every attempt of a call.
                .http2_keep_alive_interval(Duration::from_secs(5))
                .http2_keep_alive_timeout(Duration::from_secs(3))
                .build(connector)
        };
        Self {
            cloud: client(connectors.cloud),
            direct: client(connectors.direct),
            metrics,
        }
    }

    /// The metric families in which this client's calls are counted.
    pub(super) fn metrics(&self) -> &CloudMetrics {
        &self.metrics
    }

    /// Sends a request, waits for the whole response until `until`, and lets `read` decide what it
    /// means. Counts and logs the attempt.
    pub(super) async fn attempt<T>(
        &self,
        attempt: Attempt<'_>,
        route: Route,
        request: Request<Full<Bytes>>,
        until: Instant,
        read: impl FnOnce(ApiResponse) -> Result<T, AttemptError>,
    ) -> Result<T, AttemptError> {
        let begin = Instant::now();
        let response = self.exchange(route, request, until).await;
        let answered = response
            .as_ref()
            .ok()
            .map(|response| (response.status.as_u16(), response.request_id()));
        let result = response.and_then(read);
        let (status, request_id) = match (&result, answered) {
            (Err(error), _) => (error.status, error.request_id.clone()),
            (Ok(_), Some((status, id))) => (Some(status), id),
            (Ok(_), None) => (None, None),
        };
        self.record(
            attempt,
            begin.elapsed(),
            &result,
            status,
            request_id.as_deref(),
        );
        result
    }

    fn record<T>(
        &self,
        attempt: Attempt<'_>,
        took: Duration,
        result: &Result<T, AttemptError>,
        status: Option<u16>,
        request_id: Option<&str>,
    ) {
        let Attempt {
            operation,
            host,
            number,
        } = attempt;
        let outcome = match result {
            Ok(_) => "ok",
            Err(error) => error.kind.label(),
        };
        let seconds = took.as_secs_f64();
        self.metrics
            .calls
            .get_or_create(&CallLabels { operation, outcome })
            .inc();
        self.metrics
            .seconds
            .get_or_create(&OperationLabels { operation })
            .observe(seconds);
        if let Some(id) = request_id {
            // For spans that have the field: Huawei's support needs this ID.
            tracing::Span::current().record("request_id", id);
        }
        tracing::debug!(
            operation,
            host,
            status,
            request_id,
            attempt = number,
            outcome,
            seconds,
            "cloud call"
        );
    }

    async fn exchange(
        &self,
        route: Route,
        request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<ApiResponse, AttemptError> {
        let client = match route {
            Route::Cloud => &self.cloud,
            Route::Direct => &self.direct,
        };
        let begin = Instant::now();
        let exchange = async {
            let response = client.request(request).await.map_err(failure::sending)?;
            let (parts, body) = response.into_parts();
            Ok(ApiResponse {
                status: parts.status,
                headers: parts.headers,
                body: body::read(parts.status, body).await?,
            })
        };
        tokio::time::timeout_at(until, exchange)
            .await
            .unwrap_or_else(|_| {
                let text = format!(
                    "timed out after {:.1} s waiting for the full response",
                    begin.elapsed().as_secs_f64()
                );
                Err(AttemptError::local(
                    ErrorKind::Timeout,
                    Retryability::IfIdempotent,
                    text,
                ))
            })
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transport")
    }
}
