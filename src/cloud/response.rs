//! Interprets responses: kinds of failures, error bodies, request IDs.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::{ErrorKind, MAX_MESSAGE};
use super::retry::{Retryability, http_date, retry_after};
use crate::util::text::one_line;

/// The gateway rejects requests whose date is off by more than this.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Maximum length of a message of the service in our errors, in characters.
const MESSAGE: usize = 300;

/// A response, whatever its status.
pub(super) struct ApiResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Zeroized on drop: it may hold a secret.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct AttemptError {
    pub(super) kind: ErrorKind,
    pub(super) retryability: Retryability,
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    pub(super) message: String,
    pub(super) request_id: Option<String>,
    /// The wait that the service requests in `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

impl AttemptError {
    /// A failure without a response.
    pub(super) fn local(
        kind: ErrorKind,
        retryability: Retryability,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            retryability,
            status: None,
            code: None,
            message: one_line(&message.into(), MAX_MESSAGE),
            request_id: None,
            retry_after: None,
        }
    }
}

impl AttemptError {
    /// The same failure with a further text in its message.
    pub(super) fn and(mut self, text: &str) -> Self {
        self.message = one_line(&format!("{}; {text}", self.message), MAX_MESSAGE);
        self
    }
}

impl ApiResponse {
    /// `X-Request-Id`, or IAM's name for it.
    pub(super) fn request_id(&self) -> Option<String> {
        ["x-request-id", "x-iam-trace-id"]
            .iter()
            .find_map(|name| self.headers.get(*name)?.to_str().ok())
            .map(|id| one_line(id, 64))
            .filter(|id| !id.is_empty())
    }

    /// A success that does not match the API.
    pub(super) fn malformed(&self, why: &str) -> AttemptError {
        AttemptError {
            status: Some(self.status.as_u16()),
            request_id: self.request_id(),
            ..AttemptError::local(
                ErrorKind::Malformed,
                Retryability::IfIdempotent,
                format!(
                    "the response does not match the API: {why}; got {}",
                    self.shape()
                ),
            )
        }
    }

    /// Content type and length: all that is shown of a body that could not be parsed.
    fn shape(&self) -> String {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map_or_else(|| "no content type".to_owned(), |kind| one_line(kind, 64));
        format!("{} bytes of {kind}", self.body.len())
    }

    /// The error of a response that is not a success. `now` is the date with which the request was signed.
    pub(super) fn rejection(&self, now: Timestamp) -> AttemptError {
        let error = ErrorBody::parse(&self.body);
        let code = error.code.as_deref().unwrap_or_default();
        let text = error.message.as_deref().unwrap_or_default();
        let skew = self.skew(now);
        let kind = kind(self.status, code, text, skew.is_some());
        let retryability = match (kind, self.status.as_u16()) {
            // A 408 means that the request did not arrive.
            (ErrorKind::Throttled, _) | (_, 408 | 503) => Retryability::Always,
            (ErrorKind::Malformed, 404) => Retryability::IfIdempotent,
            (_, 500 | 502 | 504) => Retryability::IfIdempotent,
            _ => Retryability::Never,
        };
        let mut message = match &error.message {
            Some(text) => one_line(text, MESSAGE),
            None => format!("no error message ({})", self.shape()),
        };
        if let (ErrorKind::ClockSkew, Some(skew)) = (kind, skew) {
            message = format!(
                "this machine's clock is {} min {} the service's (15 min are allowed): synchronize it with NTP. The service said: {message}",
                skew.minutes, skew.side
            );
        } else if let Some(hint) = hint(kind, code, text) {
            message = format!("{message}; {hint}");
        }
        AttemptError {
            kind,
            retryability,
            status: Some(self.status.as_u16()),
            code: error.code.as_deref().map(|code| one_line(code, 64)),
            message,
            request_id: self
                .request_id()
                .or_else(|| error.request_id.as_deref().map(|id| one_line(id, 64))),
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

fn kind(status: StatusCode, code: &str, text: &str, skewed: bool) -> ErrorKind {
    let lower = text.to_ascii_lowercase();
    // The gateway's codes come as APIG.0301 and as APIGW.0301.
    let gateway = code
        .strip_prefix("APIGW.")
        .or_else(|| code.strip_prefix("APIG."));
    match (code, gateway, status.as_u16()) {
        (_, Some("0308"), _) | (_, _, 429) => ErrorKind::Throttled,
        _ if lower.contains("throttling threshold has been reached") => ErrorKind::Throttled,
        // Only a client error can be about the secret, whatever code the body has.
        (_, _, 500..=599) => ErrorKind::Server,
        (_, _, 0..=399) => ErrorKind::Malformed,
        (_, Some("0301"), 401) if skewed => ErrorKind::ClockSkew,
        (_, Some("0307"), _) => ErrorKind::CredentialsExpired,
        (_, _, 401) if lower.contains("token expire") || lower.contains("token has expired") => {
            ErrorKind::CredentialsExpired
        }
        ("CSMS.0103" | "CSMS.0109", ..) => ErrorKind::Disabled,
        ("CSMS.0302" | "CSMS.0401", ..) => ErrorKind::Denied,
        ("CSMS.0005" | "CSMS.0106", ..) => ErrorKind::NotFound,
        ("KMS.0207" | "KMS.0209" | "KMS.0210" | "KMS.0320" | "KMS.0328", ..) => {
            ErrorKind::KeyUnavailable
        }
        // A record of quotas does not exist, which says nothing about the secret.
        ("CSMS.0207", ..) => ErrorKind::Server,
        // The host exists but does not offer this API.
        (_, Some("0101"), _) => ErrorKind::Configuration,
        (_, _, 404) if code.starts_with("CSMS.") => ErrorKind::NotFound,
        // Not from the service, but for example from a proxy.
        (_, _, 404) => ErrorKind::Malformed,
        (_, _, 409) => ErrorKind::Conflict,
        (_, _, 401 | 403) => ErrorKind::Denied,
        // A proxy asks for a password.
        (_, _, 407) => ErrorKind::Configuration,
        (_, _, 408) => ErrorKind::Timeout,
        (_, _, 400..=499) => ErrorKind::Invalid,
        _ => ErrorKind::Malformed,
    }
}

/// What to do about known errors. Sources: Huawei's DEW FAQ, API gateway error codes.
fn hint(kind: ErrorKind, code: &str, text: &str) -> Option<&'static str> {
    let has = |part: &str| text.to_ascii_lowercase().contains(part);
    if has("current ip") && has("refused") {
        return Some(
            "the account's IAM access control does not allow this address: add the cluster's addresses, or this machine's, there",
        );
    }
    if has("ak not exist") {
        return Some("this access key does not exist in the region, or was deleted");
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
        (_, "CSMS.0103") => {
            Some("the secret is scheduled for deletion: cancel the deletion, or use another secret")
        }
        (_, "CSMS.0109") => Some("enable the secret in CSMS"),
        (ErrorKind::Configuration, code) if code.ends_with(".0101") => {
            Some("check the region and --csms-endpoint or --kms-endpoint")
        }
        (ErrorKind::Configuration, _) => {
            Some("a proxy asks for a user name and a password: add them to its URL")
        }
        _ => key_hint(code),
    }
}

/// What to do about the errors of KMS. Source: its table of error codes.
fn key_hint(code: &str) -> Option<&'static str> {
    Some(match code.strip_prefix("KMS.")? {
        "0205" => "a key ID has 36 characters, such as 0d0466b0-e727-4d9c-b35d-f84bb474a37f",
        "0207" => "check the key ID, the region and the project",
        "0208" => "additional authenticated data has 1 to 128 characters",
        "0209" => "enable the key in KMS, or use another key",
        "0210" => "the key is scheduled for deletion: cancel the deletion, or use another key",
        "0211" => "a default key belongs to a service: create a key of your own",
        "0320" | "0328" => {
            "the key or the account is frozen, for example because of an unpaid bill"
        }
        "0325" => "use a symmetric key, such as one with key_spec AES_256",
        "0329" => "the digest has the wrong length for the signing algorithm",
        "0331" => "use an asymmetric key",
        "0332" => "use a signing algorithm that fits the kind of the key",
        "0334" => "the key only encrypts and decrypts: use one with key_usage SIGN_VERIFY",
        "0335" => "the key only signs and verifies: use one with key_usage ENCRYPT_DECRYPT",
        "2101" | "2102" => {
            "encrypt-data takes 1 to 4096 bytes of text: for more, use dew-provider file encrypt"
        }
        "2103" => "SM4 keys are not supported: use a key with key_spec AES_256",
        "2201" | "2202" | "2203" | "2204" => {
            "the cipher text was changed or cut, or was made with another key or other additional authenticated data"
        }
        _ => return None,
    })
}

/// Code, message and request ID of an error body, in any of the shapes that Huawei's services use.
#[derive(Default)]
struct ErrorBody {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

impl ErrorBody {
    fn parse(body: &[u8]) -> Self {
        serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|value| Self::find(&value, 0))
            .unwrap_or_default()
    }

    /// The code and message at this level, else in an object below, as `core/sdkerr` of Huawei's Go SDK
    /// looks for them.
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
            // `code` alone may be anything.
            let (found, message) = (text(code), text(message));
            if let Some(found) = found.filter(|_| message.is_some() || code != "code") {
                return Some(Self {
                    code: Some(found),
                    message,
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

#[cfg(test)]
mod tests;
