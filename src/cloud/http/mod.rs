//! The one loop through which every call goes: limit → sign → send → classify → wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::answer::{Answer, Failure};
use super::connect::{Connector, Connectors};
use super::credentials::{AccessKeys, Credentials};
use super::error::{ApiError, Kind};
use super::limit::Limit;
use super::retry::{Again, Budget, TRIES, backoff_limit};
use super::sign::{self, Parts};
use crate::clock::{Clock, Jitter};
use crate::observe::metrics::{CallLabels, CloudMetrics, OperationLabels};

mod failure;
#[cfg(test)]
mod tests;

/// Time for one attempt, from the connection to the last byte of the answer.
const ATTEMPT: Duration = Duration::from_secs(8);

/// Longest answer that is read. A value has at most 32 KiB, a page of a list 50 items.
const ANSWER_LIMIT: usize = 1 << 20;

/// Not signed, since proxies may change it.
const USER_AGENT: &str = concat!("dew-provider/", env!("CARGO_PKG_VERSION"));

/// One call of an API.
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) base: &'a Url,
    /// Segments, not encoded yet. None is empty, `.` or `..`.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(String, String)],
    pub(super) body: Bytes,
    /// Whether sending it twice does the same as sending it once.
    pub(super) idempotent: bool,
    /// Whether it counts against the limit of calls.
    pub(super) limited: bool,
}

/// Whose keys sign a call.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) project: Option<&'a str>,
}

/// Connections, limits and clocks of one client.
pub(super) struct Sender {
    cloud: Client<Connector, Full<Bytes>>,
    direct: Client<Connector, Full<Bytes>>,
    limit: Limit,
    budget: Budget,
    pub(super) clock: Clock,
    pub(super) jitter: Jitter,
    pub(super) metrics: CloudMetrics,
}

impl Sender {
    pub(super) fn new(
        connectors: Connectors,
        limit: Limit,
        clock: Clock,
        jitter: Jitter,
        metrics: CloudMetrics,
    ) -> Self {
        let client = |connector| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(Duration::from_secs(50))
                // a connection whose other end is gone must not eat every attempt of a call
                .http2_keep_alive_interval(Duration::from_secs(5))
                .http2_keep_alive_timeout(Duration::from_secs(3))
                .build(connector)
        };
        Self {
            cloud: client(connectors.cloud),
            direct: client(connectors.direct),
            limit,
            budget: Budget::new(),
            clock,
            jitter,
            metrics,
        }
    }

    /// Makes a call until it succeeds, fails for good, or no try fits in before `deadline`.
    pub(super) async fn send<T>(
        &self,
        call: &Call<'_>,
        signer: Signer<'_>,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let begin = Instant::now();
        let mut tries = 0;
        let mut paid = 0;
        let mut renewed = false;
        let give_up = |failure: Failure, tries: u32, note: &str| {
            failure.into_error(call, tries, begin.elapsed(), note)
        };
        loop {
            if call.limited {
                self.limit.pass(deadline).await.map_err(|why| {
                    give_up(
                        Failure::local(Kind::Throttled, Again::Never, why),
                        tries,
                        "",
                    )
                })?;
            }
            let keys = signer.credentials.keys(deadline).await?;
            tries += 1;
            let result = self
                .attempt(call, &keys, signer.project, tries, deadline, &read)
                .await;
            let failure = match result {
                Ok(value) => {
                    self.budget.give_back(paid);
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if failure.kind == Kind::CredentialsExpired && !renewed {
                renewed = true;
                if signer.credentials.renew(&keys, deadline).await? {
                    continue;
                }
            }
            let may = match failure.again {
                Again::Never => false,
                Again::IfIdempotent => call.idempotent,
                Again::Always => true,
            };
            if !may {
                let unknown = failure.again == Again::IfIdempotent;
                let note = "it is unknown whether the request was carried out";
                return Err(give_up(failure, tries, if unknown { note } else { "" }));
            }
            if tries >= TRIES {
                return Err(give_up(failure, tries, ""));
            }
            let wait = self.jitter.up_to(backoff_limit(tries));
            let asked = failure.retry_after.unwrap_or_default();
            if Instant::now() + wait.max(asked) >= deadline {
                let note = if asked > wait {
                    format!(
                        "the service asks to wait {} s, longer than the time left",
                        asked.as_secs()
                    )
                } else {
                    String::new()
                };
                return Err(give_up(failure, tries, &note));
            }
            let slow = matches!(failure.kind, Kind::Timeout | Kind::Connect);
            match self.budget.take(slow) {
                Some(cost) => paid = cost,
                None => {
                    let note = "not tried again: too many calls of this process fail now";
                    return Err(give_up(failure, tries, note));
                }
            }
            self.metrics
                .retries
                .get_or_create(&OperationLabels {
                    operation: call.operation,
                })
                .inc();
            tokio::time::sleep(wait.max(asked)).await;
        }
    }

    /// One try: signed now, sent, read to the end, counted.
    async fn attempt<T>(
        &self,
        call: &Call<'_>,
        keys: &AccessKeys,
        project: Option<&str>,
        tries: u32,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let now = self.clock.now();
        let request = request(call, keys, project, now)?;
        let until = deadline.min(Instant::now() + ATTEMPT);
        let seen = Seen {
            operation: call.operation,
            host: host(call.base),
            tries,
        };
        self.observed(seen, async {
            let answer = self.exchange(&self.cloud, request, until).await?;
            if !answer.status.is_success() {
                return Err(answer.refused(now));
            }
            let value = read(&answer.body).map_err(|why| answer.malformed(&why))?;
            Ok((value, answer.status.as_u16(), answer.request_id()))
        })
        .await
    }

    /// One unsigned exchange with the metadata service, whatever its answer.
    pub(super) async fn direct(
        &self,
        operation: &'static str,
        request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let seen = Seen {
            operation,
            host,
            tries: 1,
        };
        self.observed(seen, async {
            let answer = self.exchange(&self.direct, request, until).await?;
            let status = answer.status.as_u16();
            Ok((answer, status, None))
        })
        .await
    }

    /// Counts and logs an attempt.
    async fn observed<T>(
        &self,
        seen: Seen,
        attempt: impl Future<Output = Result<(T, u16, Option<String>), Failure>>,
    ) -> Result<T, Failure> {
        let begin = Instant::now();
        let result = attempt.await;
        let Seen {
            operation,
            host,
            tries,
        } = seen;
        let seconds = begin.elapsed().as_secs_f64();
        let outcome = match &result {
            Ok(_) => "ok",
            Err(failure) => failure.kind.label(),
        };
        self.metrics
            .calls
            .get_or_create(&CallLabels { operation, outcome })
            .inc();
        self.metrics
            .seconds
            .get_or_create(&OperationLabels { operation })
            .observe(seconds);
        let (status, request_id) = match &result {
            Ok((_, status, id)) => (Some(*status), id.as_deref()),
            Err(failure) => (failure.status, failure.request_id.as_deref()),
        };
        tracing::debug!(
            operation,
            host,
            status,
            request_id,
            attempt = tries,
            outcome,
            seconds,
            "cloud call"
        );
        result.map(|(value, ..)| value)
    }

    async fn exchange(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let begin = Instant::now();
        let exchange = async {
            let response = client.request(request).await.map_err(failure::sending)?;
            let (parts, body) = response.into_parts();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: read_body(body).await?,
            })
        };
        tokio::time::timeout_at(until, exchange)
            .await
            .unwrap_or_else(|_| {
                let text = format!(
                    "no whole answer within {:.1} s",
                    begin.elapsed().as_secs_f64()
                );
                Err(Failure::local(Kind::Timeout, Again::IfIdempotent, text))
            })
    }
}

struct Seen {
    operation: &'static str,
    host: String,
    tries: u32,
}

/// Host and port as the `Host` header has them.
pub(super) fn host(base: &Url) -> String {
    base[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

/// Reads JSON, with an error that quotes nothing of it.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "fields are missing or of the wrong type",
            serde_json::error::Category::Eof => "the JSON is cut off",
            _ => "not JSON",
        };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })
}

/// The signed request.
fn request(
    call: &Call<'_>,
    keys: &AccessKeys,
    project: Option<&str>,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, Failure> {
    let wrong = |what: &str| {
        let text = format!("{what} cannot be sent in a header");
        Failure::local(Kind::Credentials, Again::Never, text)
    };
    let host = host(call.base);
    let path: String = call
        .path
        .iter()
        .flat_map(|segment| ["/".to_owned(), sign::encode(segment)])
        .collect();
    let mut headers = vec![("content-type", "application/json"), ("host", &host)];
    headers.extend(project.map(|project| ("x-project-id", project)));
    headers.extend(
        keys.security_token()
            .map(|token| ("x-security-token", token)),
    );
    let parts = Parts {
        method: call.method.as_str(),
        path: &path,
        query: call.query,
        headers: &headers,
    };
    let signature = sign::sign(
        &parts,
        &call.body,
        keys.access_key(),
        keys.secret_key(),
        now,
    );

    let mut url = format!("{}://{host}{path}", call.base.scheme());
    if !call.query.is_empty() {
        url.push('?');
        url.push_str(&sign::canonical_query(call.query));
    }
    let uri: Uri = url.parse().map_err(|_| {
        let text = "the request has no valid URL";
        Failure::local(Kind::Configuration, Again::Never, text)
    })?;
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let map = request.headers_mut();
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    // hyper writes Host, or :authority, from the URL
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong(name))?;
        value.set_sensitive(name == "x-security-token");
        map.insert(HeaderName::from_static(name), value);
    }
    let date = HeaderValue::from_str(&signature.date).map_err(|_| wrong("x-sdk-date"))?;
    map.insert(HeaderName::from_static("x-sdk-date"), date);
    let mut authorization =
        HeaderValue::from_str(&signature.authorization).map_err(|_| wrong("the access key"))?;
    authorization.set_sensitive(true);
    map.insert(header::AUTHORIZATION, authorization);
    Ok(request)
}

/// The whole body, in memory that is wiped; it grows without leaving copies behind.
async fn read_body(mut body: hyper::body::Incoming) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let broken = |text: String| Failure::local(Kind::Malformed, Again::IfIdempotent, text);
    let too_long = || {
        let text = format!("the answer is longer than {ANSWER_LIMIT} bytes");
        Failure::local(Kind::Malformed, Again::Never, text)
    };
    let expected = hyper::body::Body::size_hint(&body).lower();
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    if expected > ANSWER_LIMIT {
        return Err(too_long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.max(4096)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            broken(format!(
                "the answer broke off after {} bytes: {}",
                bytes.len(),
                failure::chain(&error)
            ))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = bytes.len() + data.len();
        if needed > ANSWER_LIMIT {
            return Err(too_long());
        }
        if needed > bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

impl Failure {
    fn into_error(self, call: &Call<'_>, attempts: u32, elapsed: Duration, note: &str) -> ApiError {
        let mut message = self.message;
        if !note.is_empty() {
            message = format!("{message}; {note}");
        }
        ApiError {
            operation: call.operation,
            kind: self.kind,
            host: Some(host(call.base)),
            status: self.status,
            code: self.code,
            message,
            request_id: self.request_id,
            attempts,
            elapsed,
        }
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

/// A sender as the credentials' task holds it.
pub(super) type Shared = Arc<Sender>;
