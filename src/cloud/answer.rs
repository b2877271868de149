//! What an answer means.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::Kind;
use super::retry::{Again, http_date, retry_after};

/// The gateway refuses dates that differ by more than this.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Longest message of the service that is passed on.
const MESSAGE: usize = 300;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Wiped when dropped: it may hold a secret.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) again: Again,
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
    /// How long the service asks to wait.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without an answer.
    pub(super) fn local(kind: Kind, again: Again, message: impl Into<String>) -> Self {
        Self {
            kind,
            again,
            status: None,
            code: None,
            message: message.into(),
            request_id: None,
            retry_after: None,
        }
    }
}

impl Answer {
    /// `X-Request-Id`, or IAM's name for it.
    pub(super) fn request_id(&self) -> Option<String> {
        ["x-request-id", "x-iam-trace-id"]
            .iter()
            .find_map(|name| self.headers.get(*name)?.to_str().ok())
            .map(|id| one_line(id, 64))
            .filter(|id| !id.is_empty())
    }

    /// An answer that says yes and is not what the API promises.
    pub(super) fn malformed(&self, why: &str) -> Failure {
        Failure {
            status: Some(self.status.as_u16()),
            request_id: self.request_id(),
            ..Failure::local(
                Kind::Malformed,
                Again::IfIdempotent,
                format!(
                    "the answer is not what the API promises: {why}; got {}",
                    self.shape()
                ),
            )
        }
    }

    /// Content type and length: all that is shown of a body that was not understood.
    fn shape(&self) -> String {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map_or_else(|| "no content type".to_owned(), |kind| one_line(kind, 64));
        format!("{} bytes of {kind}", self.body.len())
    }

    /// An answer that says no. `now` is the date that signed the request.
    pub(super) fn refused(&self, now: Timestamp) -> Failure {
        let told = Told::read(&self.body);
        let code = told.code.as_deref().unwrap_or_default();
        let text = told.message.as_deref().unwrap_or_default();
        let skew = self.skew(now);
        let kind = kind(self.status, code, text, skew.is_some());
        let again = match (kind, self.status.as_u16()) {
            (Kind::Throttled, _) | (_, 503) => Again::Always,
            (Kind::Malformed, 404) => Again::IfIdempotent,
            (_, 500 | 502 | 504) => Again::IfIdempotent,
            _ => Again::Never,
        };
        let mut message = match &told.message {
            Some(text) => one_line(text, MESSAGE),
            None => format!("no reason given ({})", self.shape()),
        };
        if let (Kind::ClockSkew, Some(skew)) = (kind, skew) {
            message = format!(
                "this machine's clock is {} min {} the service's, and 15 min are allowed: set the clock (NTP). The service said: {message}",
                skew.minutes, skew.side
            );
        } else if let Some(hint) = hint(kind, code, text) {
            message = format!("{message}; {hint}");
        }
        Failure {
            kind,
            again,
            status: Some(self.status.as_u16()),
            code: told.code.as_deref().map(|code| one_line(code, 64)),
            message,
            request_id: self
                .request_id()
                .or_else(|| told.request_id.as_deref().map(|id| one_line(id, 64))),
            retry_after: self
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, now)),
        }
    }

    fn skew(&self, now: Timestamp) -> Option<Skew> {
        let theirs = http_date(self.headers.get(header::DATE)?.to_str().ok()?)?;
        let apart = now.duration_since(theirs);
        (apart.unsigned_abs() > SKEW).then(|| Skew {
            minutes: apart.unsigned_abs().as_secs() / 60,
            side: if apart.is_positive() {
                "ahead of"
            } else {
                "behind"
            },
        })
    }
}

struct Skew {
    minutes: u64,
    side: &'static str,
}

fn kind(status: StatusCode, code: &str, text: &str, skewed: bool) -> Kind {
    let lower = text.to_ascii_lowercase();
    // the gateway's codes are seen as APIG.0301 and APIGW.0301
    let gateway = code
        .strip_prefix("APIGW.")
        .or_else(|| code.strip_prefix("APIG."));
    match (code, gateway, status.as_u16()) {
        (_, Some("0308"), _) | (_, _, 429) => Kind::Throttled,
        _ if lower.contains("throttling threshold has been reached") => Kind::Throttled,
        (_, Some("0301"), 401) if skewed => Kind::ClockSkew,
        (_, Some("0307"), _) => Kind::CredentialsExpired,
        (_, _, 401) if lower.contains("token expire") || lower.contains("token has expired") => {
            Kind::CredentialsExpired
        }
        ("CSMS.0103" | "CSMS.0109", ..) => Kind::Disabled,
        ("CSMS.0302" | "CSMS.0401", ..) => Kind::Denied,
        ("CSMS.0005" | "CSMS.0106", ..) => Kind::NotFound,
        // the host is there, but does not offer this API
        (_, Some("0101"), _) => Kind::Configuration,
        // what has no code of the service is another's answer, such as a proxy's page
        ("", _, 404) => Kind::Malformed,
        (_, _, 404) => Kind::NotFound,
        (_, _, 409) => Kind::Conflict,
        (_, _, 401 | 403) => Kind::Denied,
        (_, _, 408) => Kind::Timeout,
        (_, _, 400..=499) => Kind::Invalid,
        (_, _, 500..=599) => Kind::Server,
        _ => Kind::Malformed,
    }
}

/// What to do, where experience knows it (Huawei's DEW FAQ, API gateway error codes).
fn hint(kind: Kind, code: &str, text: &str) -> Option<&'static str> {
    let has = |part: &str| text.to_ascii_lowercase().contains(part);
    if has("current ip") && has("refused") {
        return Some(
            "the account's IAM access control does not admit this address: allow the cluster's addresses there",
        );
    }
    if has("ak not exist") {
        return Some("this access key does not exist in the region's accounts, or was deleted");
    }
    if has("ak access failed to reach the limit") {
        return Some(
            "the access key is locked for 5 minutes after more than 5 wrong signatures: check the secret key",
        );
    }
    if has("verify aksk signature fail") {
        return Some(
            "the secret key does not belong to the access key, or a proxy changed the request",
        );
    }
    match (kind, code) {
        (_, "CSMS.0401") => Some(
            "grant the identity the right to decrypt with the secret's KMS key (kms:dek:decrypt, or the KMS CMKFullAccess policy) beside its CSMS rights",
        ),
        (_, "CSMS.0302") => Some(
            "grant the identity csms:secretVersion:get, and for stages csms:secretStage:get, in this region's project",
        ),
        (_, "CSMS.0103") => Some("the secret waits for its deletion: cancel that, or use another"),
        (_, "CSMS.0109") => Some("enable the secret in CSMS"),
        (Kind::Configuration, _) => Some("check the region and --csms-endpoint"),
        _ => None,
    }
}

/// Code, message and request id of an error body, in any of the shapes that Huawei's services have.
#[derive(Default)]
struct Told {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

impl Told {
    fn read(body: &[u8]) -> Self {
        serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| Self::find(&value, 0))
            .unwrap_or_default()
    }

    /// The pair at this level, else in an object below (as `core/sdkerr` of Huawei's Go SDK).
    fn find(value: &Value, depth: u32) -> Option<Self> {
        let object = value.as_object()?;
        let text = |name: &str| match object.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let pairs = [
            ("error_code", "error_msg"),
            ("errorCode", "errorMsg"),
            ("code", "message"),
        ];
        for (code, message) in pairs {
            if let (Some(code), Some(message)) = (text(code), text(message)) {
                return Some(Self {
                    code: Some(code),
                    message: Some(message),
                    request_id: text("request_id"),
                });
            }
        }
        if depth == 4 {
            return None;
        }
        object
            .values()
            .find_map(|value| Self::find(value, depth + 1))
    }
}

/// At most `limit` characters without anything that could break a line of a log.
pub(super) fn one_line(text: &str, limit: usize) -> String {
    let breaks = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<&str> = text.split(breaks).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(limit) {
        None => line,
        Some(_) => line.chars().take(limit - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests;
