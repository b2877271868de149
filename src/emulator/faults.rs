//! Faults on demand: which call goes wrong, and how.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use futures::stream;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::route::Route;

/// One rule of `/_emulator/faults`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default, rename = "match")]
    matches: Match,
    /// How often; without it until cleared.
    times: Option<u64>,
    fault: Fault,
}

/// Which calls; no field means all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    operation: Option<String>,
    secret: Option<String>,
    project: Option<String>,
    region: Option<String>,
    /// Matching calls that go well first.
    #[serde(default)]
    after: u64,
}

/// What goes wrong. Fields may be combined, such as a delay before a status.
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

/// Tells the server to drop the connection with a TCP reset instead of answering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset;

/// The fault of the first rule that matches; rules are used up in order.
pub(super) fn take(rules: &mut Vec<Rule>, route: &Route, region: Option<&str>) -> Option<Fault> {
    let index = rules
        .iter_mut()
        .position(|rule| rule.takes(route, region))?;
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

impl Rule {
    fn takes(&mut self, route: &Route, region: Option<&str>) -> bool {
        let wanted = |want: &Option<String>, is: Option<&str>| {
            want.as_deref().is_none_or(|want| Some(want) == is)
        };
        let matches = &mut self.matches;
        if self.times == Some(0)
            || !wanted(&matches.operation, Some(route.operation))
            || !wanted(&matches.secret, route.secret.as_deref())
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
    /// The answer in place of the call's own, if this fault has one.
    pub(super) fn answer(&self, request_id: &str) -> Option<Answer> {
        let status = StatusCode::from_u16(self.status?).unwrap_or(StatusCode::BAD_GATEWAY);
        let code = self.code.as_deref().unwrap_or(match status.as_u16() {
            429 => "APIG.0308",
            502 | 504 => "APIG.0201",
            500..=599 => "CSMS.0001",
            _ => "APIG.0601",
        });
        let message = self.message.as_deref().unwrap_or("fault on demand");
        Some(Answer::error(status, code, message, request_id))
    }

    /// Spoils an answer on its way out.
    pub(super) fn spoil(&self, mut response: Response<Body>, body: Bytes) -> Response<Body> {
        let mut body = body;
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
            response.extensions_mut().insert(Reset);
            Body::empty()
        } else if let Some(kept) = self.truncate {
            broken_off(body.slice(..kept.min(body.len())))
        } else if let Some(slow) = self.slow_body {
            dripping(body, slow)
        } else if self.wrong_content_length {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(body)]))
        } else {
            Body::from(body)
        };
        response
    }
}

/// Sends the bytes, then closes the connection in the middle of the body.
fn broken_off(bytes: Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(bytes), |left| async move {
        match left {
            Some(bytes) => Some((Ok(bytes), None)),
            None => {
                // Lets hyper write what it has before it sees the error.
                tokio::task::yield_now().await;
                Some((Err(io::Error::other("truncated on demand")), None))
            }
        }
    }))
}

fn dripping(body: Bytes, slow: SlowBody) -> Body {
    Body::from_stream(stream::unfold(body, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(slow.delay_ms)).await;
        let chunk = left.split_to(slow.chunk_bytes.clamp(1, left.len()));
        Some((Ok::<_, io::Error>(chunk), left))
    }))
}
