//! Errors of calls to the cloud.

use std::fmt;
use std::time::Duration;

use crate::util::single_flight::FlightError;
use crate::util::text::one_line;

/// What a failure means to the caller. Determines retries, gRPC codes and metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The service rejected the request as invalid (400, unless another kind applies).
    Invalid,
    /// The secret, version or stage does not exist (404, CSMS.0005, CSMS.0106).
    NotFound,
    /// It already exists (409).
    Conflict,
    /// The secret is disabled, frozen or scheduled for deletion (CSMS.0103, CSMS.0109).
    Disabled,
    /// The KMS key does not exist, or is disabled, frozen or scheduled for deletion (KMS.0207, KMS.0209, KMS.0210,
    /// KMS.0320, KMS.0328). It says nothing about a secret.
    KeyUnavailable,
    /// The identity lacks a permission, or its keys are rejected (401, 403, CSMS.0302, CSMS.0401).
    Denied,
    /// The temporary keys have expired; new ones may help.
    CredentialsExpired,
    /// This clock and the service's differ by more than the 15 minutes that the gateway allows.
    ClockSkew,
    /// Too many requests (429, or the throttling text).
    Throttled,
    /// This process's own rate limit left no room before the deadline: nothing was sent.
    RateLimited,
    /// The service failed (5xx).
    Server,
    /// No connection could be made, or it broke.
    Connect,
    /// No complete response within the timeout of an attempt, or before the deadline.
    Timeout,
    /// The response does not match the API: not JSON, truncated, fields missing.
    Malformed,
    /// No usable credentials.
    Credentials,
    /// This process is misconfigured (unknown region, bad endpoint, project not found).
    Configuration,
}

impl ErrorKind {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Disabled => "disabled",
            Self::KeyUnavailable => "key_unavailable",
            Self::Denied => "denied",
            Self::CredentialsExpired => "credentials_expired",
            Self::ClockSkew => "clock_skew",
            Self::Throttled => "throttled",
            Self::RateLimited => "rate_limited",
            Self::Server => "server",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Credentials => "credentials",
            Self::Configuration => "configuration",
        }
    }

    /// As the reason of a Kubernetes condition: `NotFound`.
    pub fn reason(self) -> String {
        let words = self.label().split('_');
        words
            .map(|word| word[..1].to_ascii_uppercase() + &word[1..])
            .collect()
    }

    /// Whether the service failed to respond, as opposed to rejecting the request. During an outage,
    /// a value from another region or one fetched earlier may be served instead.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Throttled | Self::Server | Self::Connect | Self::Timeout | Self::Malformed
        )
    }

    /// All kinds, for tests that iterate over them.
    pub const ALL: [Self; 16] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Disabled,
        Self::KeyUnavailable,
        Self::Denied,
        Self::CredentialsExpired,
        Self::ClockSkew,
        Self::Throttled,
        Self::RateLimited,
        Self::Server,
        Self::Connect,
        Self::Timeout,
        Self::Malformed,
        Self::Credentials,
        Self::Configuration,
    ];
}

/// Maximum length of a message, in characters.
pub(super) const MAX_MESSAGE: usize = 1000;

/// A call that failed after all retries.
///
/// `Display` is one line: operation, host, status, the service's code and message, request ID and
/// attempts. It never contains a body, a header or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// API operation, such as `ShowSecretVersion`.
    pub operation: &'static str,
    /// What the failure means.
    pub kind: ErrorKind,
    /// Host and port of the request, if one was sent.
    pub host: Option<String>,
    /// HTTP status of the last response.
    pub status: Option<u16>,
    /// The service's own code, such as `CSMS.0106`.
    pub code: Option<String>,
    /// The service's message and ours. One line, at most 1000 characters.
    pub message: String,
    /// `X-Request-Id` of the last response, which Huawei's support needs.
    pub request_id: Option<String>,
    /// Number of requests sent.
    pub attempts: u32,
    /// Time from the first attempt to the last.
    pub elapsed: Duration,
}

impl ApiError {
    /// An error that arises in this process, before anything is sent.
    pub fn local(operation: &'static str, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            operation,
            kind,
            host: None,
            status: None,
            code: None,
            message: one_line(&message.into(), MAX_MESSAGE),
            request_id: None,
            attempts: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// The same error with a further text in its message.
    pub fn and(mut self, text: &str) -> Self {
        let half = MAX_MESSAGE / 2 - 1;
        let (own, text) = (one_line(&self.message, half), one_line(text, half));
        self.message = format!("{own}; {text}");
        self
    }

    /// Whether the service itself said that the secret does not exist, is disabled, or may not be read. Only then
    /// may a value that was fetched earlier no longer be served: a gateway, a proxy or this process may fail in
    /// many ways that say nothing about the secret. "Not found" has to be repeated before it counts.
    pub fn is_definitive(&self) -> bool {
        let is_services_own = |code: &String| code.starts_with("CSMS.");
        match self.kind {
            ErrorKind::Denied => self.code.as_ref().is_some_and(is_services_own),
            // These kinds arise from the service's codes, and from its lists.
            ErrorKind::NotFound | ErrorKind::Disabled => true,
            _ => false,
        }
    }

    /// Whether the failure is about the whole secret, and not only about the version or stage of the request.
    pub fn concerns_whole_secret(&self) -> bool {
        let no_secret = |code: &str| matches!(code, "CSMS.0005" | "CSMS.0106");
        match self.kind {
            ErrorKind::Disabled => true,
            ErrorKind::NotFound => self.code.as_deref().is_some_and(no_secret),
            _ => false,
        }
    }

    /// The error of a call that was shared with other callers and has no result.
    pub fn from_flight(operation: &'static str, error: FlightError) -> Self {
        let (kind, message) = match error {
            FlightError::TimedOut => (
                ErrorKind::Timeout,
                "timed out waiting for a request shared with other callers",
            ),
            FlightError::Panicked => (
                ErrorKind::Server,
                "internal error in dew-provider; please report this bug",
            ),
        };
        Self::local(operation, kind, message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if let Some(host) = &self.host {
            write!(f, " at {host}")?;
        }
        write!(f, ": ")?;
        if let Some(status) = self.status {
            write!(f, "HTTP {status} ")?;
        }
        if let Some(code) = &self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(id) = &self.request_id {
            write!(f, " (request ID {id})")?;
        }
        if self.attempts > 1 {
            write!(
                f,
                "; gave up after {} attempts in {:.1} s",
                self.attempts,
                self.elapsed.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}
