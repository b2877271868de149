//! Fault injection: which calls fail, and how.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use futures::stream;
use serde::{Deserialize, Serialize};

use super::reply::ApiReply;
use super::route::{ApiRoute, Service};

/// One rule of `/_emulator/faults`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultRule {
    #[serde(default, rename = "match")]
    matches: CallMatcher,
    /// How many more calls it applies to; `None` means until cleared.
    times: Option<u64>,
    fault: Fault,
}

/// The calls a rule applies to. An omitted field matches all calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallMatcher {
    operation: Option<String>,
    secret: Option<String>,
    key: Option<String>,
    project: Option<String>,
    region: Option<String>,
    /// How many matching calls succeed first.
    #[serde(default)]
    after: u64,
}

/// What happens to a call. Fields may be combined, for example a delay and a status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) delay_ms: Option<u64>,
    pub(super) clock_skew_seconds: Option<i64>,
    #[serde(default)]
    pub(super) expire_tokens: bool,
    #[serde(default)]
    pub(super) reset: bool,
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    retry_after: Option<u64>,
    body: Option<String>,
    garbage: Option<Garbage>,
    truncate: Option<usize>,
    #[serde(default)]
    wrong_content_length: bool,
    slow_body: Option<SlowBody>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Garbage {
    Json,
    Html,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowBody {
    chunk_bytes: usize,
    delay_ms: u64,
}

/// Response extension that makes the server reset the TCP connection instead of responding.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResetConnection;

/// Returns the fault of the first rule that applies to a call, and removes the rule after its last
/// use.
pub(super) fn take_fault(
    rules: &mut Vec<FaultRule>,
    route: &ApiRoute,
    region: Option<&str>,
) -> Option<Fault> {
    let index = rules
        .iter_mut()
        .position(|rule| rule.applies_to(route, region))?;
    let rule = rules.get_mut(index)?;
    let fault = rule.fault.clone();
    if let Some(times) = &mut rule.times {
        *times = times.saturating_sub(1);
        if *times == 0 {
            rules.remove(index);
        }
    }
    Some(fault)
}

/// The same for a request to the metadata service. Only rules that name the operation apply, because the
/// others are about signed calls.
pub(super) fn take_metadata_fault(
    rules: &mut Vec<FaultRule>,
    operation: &'static str,
) -> Option<Fault> {
    let is_named = |rule: &FaultRule| rule.matches.operation.as_deref() == Some(operation);
    let named = rules.iter().position(is_named)?;
    let route = ApiRoute {
        operation,
        ..ApiRoute::default()
    };
    // Rules before it are about other operations, so they would not apply.
    let mut rest = rules.split_off(named);
    let fault = take_fault(&mut rest, &route, None);
    rules.append(&mut rest);
    fault
}

impl FaultRule {
    /// Whether the rule applies to a call. Counts down `after`.
    fn applies_to(&mut self, route: &ApiRoute, region: Option<&str>) -> bool {
        let wanted = |want: &Option<String>, is: Option<&str>| {
            want.as_deref().is_none_or(|want| Some(want) == is)
        };
        let matches = &mut self.matches;
        if self.times == Some(0)
            || !wanted(&matches.operation, Some(route.operation))
            || !wanted(&matches.secret, route.secret.as_deref())
            || !wanted(&matches.key, route.key.as_deref())
            || !wanted(&matches.project, route.project.as_deref())
            || !wanted(&matches.region, region)
        {
            return false;
        }
        if matches.after > 0 {
            matches.after -= 1;
            return false;
        }
        true
    }
}

impl Fault {
    /// The error to return instead of executing the call, if the fault has a status.
    pub(super) fn error_reply(&self, service: Service, request_id: &str) -> Option<ApiReply> {
        let status = StatusCode::from_u16(self.status?).unwrap_or(StatusCode::BAD_GATEWAY);
        let code = self.code.as_deref().unwrap_or(match status.as_u16() {
            429 => "APIG.0308",
            502 | 504 => "APIG.0201",
            500..=599 if service == Service::Kms => "KMS.0102",
            500..=599 => "CSMS.0001",
            _ => "APIG.0601",
        });
        let message = self.message.as_deref().unwrap_or("injected fault");
        Some(ApiReply::error(status, code, message, request_id))
    }

    /// The response of the metadata service, whose errors are texts.
    pub(super) async fn apply_to_metadata(&self, response: Response<Body>) -> Response<Body> {
        if let Some(delay) = self.delay_ms {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let (mut parts, body) = response.into_parts();
        let mut body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        if let Some(status) = self.status {
            parts.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            body = self.message.clone().unwrap_or_default().into();
        }
        self.apply(Response::from_parts(parts, Body::empty()), body)
    }

    /// Applies the fault to a response before it is sent. `body` is the original body.
    pub(super) fn apply(&self, mut response: Response<Body>, body: Bytes) -> Response<Body> {
        let mut body = self.body.clone().map_or(body, Bytes::from);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        match self.garbage {
            Some(Garbage::Json) => body = Bytes::from_static(b"{\"version\": {\"version_meta"),
            Some(Garbage::Html) => {
                body = Bytes::from_static(b"<html><body>502 Bad Gateway</body></html>");
                let html = HeaderValue::from_static("text/html");
                response.headers_mut().insert(CONTENT_TYPE, html);
            }
            None => {}
        }
        let mut length = body.len();
        if self.wrong_content_length {
            length /= 2;
        }
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = if self.reset {
            response.extensions_mut().insert(ResetConnection);
            Body::empty()
        } else if let Some(kept) = self.truncate {
            truncated_body(body.slice(..kept.min(body.len())))
        } else if let Some(slow) = self.slow_body {
            slow_body(body, slow)
        } else if self.wrong_content_length {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(body)]))
        } else {
            Body::from(body)
        };
        response
    }
}

/// Sends the bytes, then fails, which closes the connection in the middle of the body.
fn truncated_body(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(bytes), |rest| async move {
        match rest {
            Some(bytes) => Some((Ok(bytes), None)),
            None => {
                // Let hyper write the bytes before it sees the error.
                tokio::task::yield_now().await;
                Some((
                    Err(io::Error::other("injected fault: truncated body")),
                    None,
                ))
            }
        }
    }))
}

/// Sends the bytes in chunks, each after a delay.
fn slow_body(body: Bytes, slow: SlowBody) -> Body {
    Body::from_stream(stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(slow.delay_ms)).await;
        let chunk = rest.split_to(slow.chunk_bytes.clamp(1, rest.len()));
        Some((Ok::<_, io::Error>(chunk), rest))
    }))
}
