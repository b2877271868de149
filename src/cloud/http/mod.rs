//! The one loop through which every call goes: limit → sign → send → classify → wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use url::Url;

use super::answer::{Answer, Failure};
use super::connect::{Connector, Connectors};
use super::credentials::{AccessKeys, Credentials};
use super::error::{ApiError, Kind};
use super::limit::Limit;
use super::retry::{Again, Budget, TRIES, backoff_limit};
use crate::clock::{Clock, Jitter};
use crate::observe::metrics::{CallLabels, CloudMetrics, OperationLabels};

mod body;
mod failure;
mod request;
#[cfg(test)]
mod tests;

pub(super) use body::json;
use request::{host, request};

/// Time for one attempt, from the connection to the last byte of the answer.
const ATTEMPT: Duration = Duration::from_secs(8);

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
    /// The limit of calls that it counts against.
    pub(super) limit: Option<&'a Limit>,
}

/// Whose keys sign a call.
#[derive(Clone, Copy)]
pub(super) struct Signer<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) project: Option<&'a str>,
}

/// Connections and clocks of one client.
pub(super) struct Sender {
    cloud: Client<Connector, Full<Bytes>>,
    direct: Client<Connector, Full<Bytes>>,
    budget: Budget,
    pub(super) clock: Clock,
    pub(super) jitter: Jitter,
    pub(super) metrics: CloudMetrics,
}

impl Sender {
    pub(super) fn new(
        connectors: Connectors,
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
            if let Some(limit) = call.limit {
                limit.pass(deadline).await.map_err(|why| {
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
        if let Some(id) = request_id {
            // For whoever's span has room for it: what Huawei's support asks for.
            tracing::Span::current().record("request_id", id);
        }
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
                body: body::read(body).await?,
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
