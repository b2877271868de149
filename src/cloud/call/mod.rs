//! The one loop through which every signed call goes: limit → sign → send → classify → retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::credentials::AccessKeys;
use super::error::{ApiError, ErrorKind, MAX_MESSAGE};
use super::permission::missing;
use super::response::AttemptError;
use super::retry::{MAX_ATTEMPTS, RetryBudgets, Retryability, backoff_limit};
use super::transport::{Attempt, Route, Transport};
use crate::telemetry::metrics::OperationLabels;
use crate::util::clock::{Clock, Jitter};
use crate::util::text::one_line;

mod request;
pub(super) use request::{Call, Signer};
#[cfg(test)]
mod tests;

/// Limit of one attempt, from connecting to the last byte of the response.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// Sends calls, and retries them within one budget for each host, which tenants share.
pub(super) struct CallLoop {
    transport: Arc<Transport>,
    budgets: RetryBudgets,
    clock: Clock,
    jitter: Jitter,
}

impl CallLoop {
    pub(super) fn new(transport: Arc<Transport>, clock: Clock, jitter: Jitter) -> Self {
        Self {
            transport,
            budgets: RetryBudgets::default(),
            clock,
            jitter,
        }
    }

    /// Sends a call until it succeeds, fails for good, or no further attempt fits before `deadline`.
    /// `read` parses the body of a success.
    pub(super) async fn run<T>(
        &self,
        call: &Call<'_>,
        signer: Signer<'_>,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let begin = Instant::now();
        let budget = self.budgets.of(call.base.host_str().unwrap_or_default());
        let mut attempts = 0;
        let mut paid = 0;
        let mut renewed = false;
        let give_up = |error: AttemptError, attempts: u32, note: &str| {
            into_api_error(error, call, attempts, begin.elapsed(), note)
        };
        loop {
            let admitted = call.limiter.acquire(call.turn, deadline).await;
            admitted.map_err(|why| {
                let error = AttemptError::local(ErrorKind::RateLimited, Retryability::Never, why);
                give_up(error, attempts, "")
            })?;
            let keys = signer.credentials.keys(deadline).await?;
            attempts += 1;
            let result = self
                .attempt(call, &keys, signer.project, attempts, deadline, &read)
                .await;
            let error = match result {
                Ok(value) => {
                    budget.deposit(&call.turn.names(), paid);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if error.kind == ErrorKind::CredentialsExpired && !renewed {
                renewed = true;
                if signer.credentials.renew(&keys, deadline).await? {
                    continue;
                }
            }
            let may_retry = match error.retryability {
                Retryability::Never => false,
                Retryability::IfIdempotent => call.idempotent,
                Retryability::Always => true,
            };
            if !may_retry {
                let unknown = error.retryability == Retryability::IfIdempotent;
                let note = "it is unknown whether the request was carried out";
                return Err(give_up(error, attempts, if unknown { note } else { "" }));
            }
            if attempts >= MAX_ATTEMPTS {
                return Err(give_up(error, attempts, ""));
            }
            let backoff = self.jitter.up_to(backoff_limit(attempts));
            let requested = error.retry_after.unwrap_or_default();
            if Instant::now() + backoff.max(requested) >= deadline {
                let note = if requested > backoff {
                    format!(
                        "the service asks to wait {} s, longer than the time left",
                        requested.as_secs()
                    )
                } else {
                    String::new()
                };
                return Err(give_up(error, attempts, &note));
            }
            let slow = matches!(error.kind, ErrorKind::Timeout | ErrorKind::Connect);
            match budget.withdraw(&call.turn.names(), slow) {
                Some(cost) => paid = cost,
                None => {
                    let note = "not retried: too many calls of this namespace or process to this host are failing";
                    return Err(give_up(error, attempts, note));
                }
            }
            self.transport
                .metrics()
                .retries
                .get_or_create(&OperationLabels {
                    operation: call.operation,
                })
                .inc();
            tokio::time::sleep(backoff.max(requested)).await;
        }
    }

    /// Makes one attempt: signs and sends the request, reads the whole response, and classifies it.
    async fn attempt<T>(
        &self,
        call: &Call<'_>,
        keys: &AccessKeys,
        project: Option<&str>,
        number: u32,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, AttemptError> {
        let now = self.clock.now();
        let request = request::signed(call, keys, project, now)?;
        let until = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let host = request::host(call.base);
        let attempt = Attempt {
            operation: call.operation,
            host: &host,
            number,
        };
        self.transport
            .attempt(attempt, Route::Cloud, request, until, |response| {
                if !response.status.is_success() {
                    let error = response.rejection(now);
                    let code = error.code.as_deref().unwrap_or_default();
                    let missing = missing(call.operation, error.kind, error.status, code);
                    return Err(match missing {
                        Some(advice) => error.and(&advice),
                        None => error,
                    });
                }
                read(&response.body).map_err(|why| response.malformed(&why))
            })
            .await
    }
}

fn into_api_error(
    error: AttemptError,
    call: &Call<'_>,
    attempts: u32,
    elapsed: Duration,
    note: &str,
) -> ApiError {
    let mut message = error.message;
    if !note.is_empty() {
        message = format!("{message}; {note}");
    }
    ApiError {
        operation: call.operation,
        kind: error.kind,
        host: Some(request::host(call.base)),
        status: error.status,
        code: error.code,
        message: one_line(&message, MAX_MESSAGE),
        request_id: error.request_id,
        attempts,
        elapsed,
    }
}

impl std::fmt::Debug for CallLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallLoop")
    }
}
