//! What can go wrong with a call to the cloud, told so that a person can act on it.

use std::fmt;
use std::time::Duration;

/// What a failure means for the caller. Decides retries, gRPC codes and metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request was refused as wrong (400 and not one of the below).
    Invalid,
    /// The secret, version or stage does not exist (404, CSMS.0005, CSMS.0106).
    NotFound,
    /// It exists already (409).
    Conflict,
    /// The secret is disabled, frozen or waits for deletion (CSMS.0103, CSMS.0109).
    Disabled,
    /// The identity lacks a right, or its keys are not accepted (401, 403, CSMS.0302, CSMS.0401).
    Denied,
    /// The temporary keys are refused as expired; new ones may help.
    CredentialsExpired,
    /// The clocks differ by more than the 15 minutes that the gateway allows.
    ClockSkew,
    /// Too many requests (429, or the throttling text).
    Throttled,
    /// The service failed (5xx).
    Server,
    /// No connection could be made, or it broke.
    Connect,
    /// No whole answer within the time-out of an attempt, or within the budget.
    Timeout,
    /// An answer that is not what the API promises: not JSON, cut off, fields missing.
    Malformed,
    /// No usable credentials; see `source`.
    Credentials,
    /// This process is set up wrongly (unknown region, bad endpoint, project not found).
    Configuration,
}

impl Kind {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Disabled => "disabled",
            Self::Denied => "denied",
            Self::CredentialsExpired => "credentials_expired",
            Self::ClockSkew => "clock_skew",
            Self::Throttled => "throttled",
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

    /// Whether another region, or a value fetched earlier, may stand in: the service could not
    /// answer, as opposed to having answered no.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Throttled | Self::Server | Self::Connect | Self::Timeout | Self::Malformed
        )
    }

    /// All kinds, for tests that walk them.
    pub const ALL: [Self; 14] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Disabled,
        Self::Denied,
        Self::CredentialsExpired,
        Self::ClockSkew,
        Self::Throttled,
        Self::Server,
        Self::Connect,
        Self::Timeout,
        Self::Malformed,
        Self::Credentials,
        Self::Configuration,
    ];
}

/// A call that failed for good: every retry that made sense was made.
///
/// `Display` is one line for people: operation, host, status, the service's code and message,
/// request id, tries. It never holds a body, a header or a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// API operation, such as `ShowSecretVersion`.
    pub operation: &'static str,
    /// What it means.
    pub kind: Kind,
    /// Host and port that were asked, where it came that far.
    pub host: Option<String>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// The service's own code, such as `CSMS.0106`.
    pub code: Option<String>,
    /// The service's message, or ours where it gave none. One line, at most 300 characters.
    pub message: String,
    /// `X-Request-Id` of the last answer: what Huawei's support asks for.
    pub request_id: Option<String>,
    /// How many times the call was sent.
    pub attempts: u32,
    /// Time from the first try to giving up.
    pub elapsed: Duration,
}

impl ApiError {
    /// A failure before anything was sent.
    pub fn local(operation: &'static str, kind: Kind, message: impl Into<String>) -> Self {
        Self {
            operation,
            kind,
            host: None,
            status: None,
            code: None,
            message: message.into(),
            request_id: None,
            attempts: 0,
            elapsed: Duration::ZERO,
        }
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
            write!(f, " (request id {id})")?;
        }
        if self.attempts > 1 {
            write!(
                f,
                "; gave up after {} tries in {:.1} s",
                self.attempts,
                self.elapsed.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}
