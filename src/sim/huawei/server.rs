//! Serves HTTP/1.1. Connections are driven by hyper instead of axum, so that a fault can break one.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::{get, put};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::auth::ReceivedRequest;
use super::cloud::{EmulatedCloud, LoggedCall, REQUEST_ID};
use super::faults::{Fault, ResetConnection, take_fault};
use super::kms::{self, KeyMaterial};
use super::reply::{ApiRejection, ApiReply};
use super::route::route;
use super::{control, metadata};

/// Longest body, in bytes, of a signed request that the gateway accepts.
const MAX_BODY: usize = 12 * 1024 * 1024;

pub(super) fn router(cloud: Arc<EmulatedCloud>) -> Router {
    control::router()
        .route("/meta-data/latest/api/token", put(metadata::token))
        .route("/openstack/latest/securitykey", get(metadata::security_key))
        .route("/openstack/latest/meta_data.json", get(metadata::meta_data))
        .fallback(api)
        .with_state(cloud)
}

/// Handles all signed requests.
async fn api(State(cloud): State<Arc<EmulatedCloud>>, request: Request) -> Response<Body> {
    let request_id = format!("{:032x}", fastrand::u128(..));
    let (head, body) = request.into_parts();
    let Some(mut route) = route(head.method.as_str(), head.uri.path()) else {
        let message = "The API does not exist or has not been published";
        let reply = ApiReply::error(StatusCode::NOT_FOUND, "APIG.0101", message, &request_id);
        return write_response(&cloud, reply, &Fault::default(), &request_id);
    };
    let region = route.project.as_deref().and_then(|id| cloud.region(id));
    // Chunked bodies too: Huawei's Java SDK sends them.
    let body = to_bytes(Body::new(body), MAX_BODY).await;
    if let Ok(body) = &body {
        route.read_body(body);
    }
    let fault = take_fault(&mut cloud.lock().faults, &route, region).unwrap_or_default();
    if let Some(delay) = fault.delay_ms {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut access_key = None;
    let reply = match (fault.error_reply(route.service, &request_id), body) {
        (Some(reply), _) => reply,
        (None, Err(_)) => {
            let message = "The request body is larger than 12 MB or cannot be read";
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            ApiReply::error(status, "APIG.0201", message, &request_id)
        }
        (None, Ok(body)) => {
            let received = ReceivedRequest {
                method: head.method.as_str(),
                path: head.uri.path(),
                query: head.uri.query().unwrap_or_default(),
                headers: &head.headers,
                body: &body,
            };
            let material = new_material(route.operation, &body).await;
            cloud
                .call(&route, &received, &fault, material, &mut access_key)
                .unwrap_or_else(
                    |ApiRejection {
                         status,
                         code,
                         message,
                     }| {
                        ApiReply::error(status, code, &message, &request_id)
                    },
                )
        }
    };
    let status = if fault.reset {
        0
    } else {
        reply.status.as_u16()
    };
    if cloud.config.log_calls {
        tracing::info!(operation = route.operation, status, request_id, "call");
    }
    let response = write_response(&cloud, reply, &fault, &request_id);
    cloud.lock().calls.add(LoggedCall {
        operation: route.operation,
        project: route.project,
        secret: route.secret,
        version: route.item,
        key: route.key,
        status,
        access_key,
        request_id,
    });
    response
}

/// Makes the material of a new key in a thread of its own: a large RSA key takes seconds.
async fn new_material(operation: &str, body: &Bytes) -> Option<KeyMaterial> {
    if operation != "CreateKey" {
        return None;
    }
    let body = body.clone();
    let made = tokio::task::spawn_blocking(move || kms::material(&body));
    made.await.ok().flatten()
}

/// Builds the HTTP response with the headers of the gateway, and applies the fault to it.
fn write_response(
    cloud: &EmulatedCloud,
    reply: ApiReply,
    fault: &Fault,
    request_id: &str,
) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    for (name, value) in [
        (REQUEST_ID, request_id),
        (DATE.as_str(), &cloud.date(fault)),
    ] {
        if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    let Some(body) = reply.body else {
        return response;
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fault.apply(response, body.to_string().into())
}

/// Accepts connections until `stop` is cancelled. In-flight requests then finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection until it ends. Once `stop` is cancelled, it ends after the current
/// request.
pub(super) async fn connection<S: ServerStream>(
    stream: S,
    router: Router,
    stop: CancellationToken,
) {
    let reset = Arc::new(AtomicBool::new(false));
    let wire = ResettableStream {
        stream,
        reset: reset.clone(),
    };
    let service = service_fn(move |request| {
        let (router, reset) = (router.clone(), reset.clone());
        async move {
            let response = router
                .oneshot(request)
                .await
                .unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<ResetConnection>().is_some() {
                reset.store(true, Ordering::Relaxed);
                return Err(io::Error::other("injected fault: connection reset"));
            }
            Ok(response)
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(wire), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// The stream of a connection.
pub(super) trait ServerStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the stream end with a reset instead of an orderly close, if the transport supports it.
    fn reset(&self);
}

impl ServerStream for TcpStream {
    fn reset(&self) {
        // If this fails, the peer sees an orderly close without a response.
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

impl ServerStream for tokio::io::DuplexStream {
    fn reset(&self) {}
}

/// A stream that is reset instead of closed when dropped, if `reset` is set.
struct ResettableStream<S: ServerStream> {
    stream: S,
    reset: Arc<AtomicBool>,
}

impl<S: ServerStream> Drop for ResettableStream<S> {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            self.stream.reset();
        }
    }
}

impl<S: ServerStream> AsyncRead for ResettableStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: ServerStream> AsyncWrite for ResettableStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            // A shutdown would send FIN before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
