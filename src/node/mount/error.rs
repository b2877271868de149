//! The only place where errors become gRPC statuses.
//!
//! Uses only codes that kubelet treats as final. After a first mount that fails with UNAVAILABLE,
//! RESOURCE_EXHAUSTED, ABORTED, CANCELLED or DEADLINE_EXCEEDED, kubelet keeps the new directory; the driver
//! then considers it recently mounted and returns OK without mounting, and the pod starts with an empty
//! directory. Sources: driver v1.6.0, nodeserver.go; kubelet, csi_client.go.

use std::fmt;

use tonic::{Code, Status};

use crate::class::resolver::ClassError;
use crate::cloud::{ApiError, ErrorKind};
use crate::node::pod_credentials::PublishSecretError;
use crate::util::text::{cut, escaped, one_line};

/// The category of a failure, for the gRPC code and the metric label.
///
/// Ordered by precedence for mounts whose objects fail in different ways: what only a person can fix comes
/// before what may be transient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request or the SecretProviderClass is invalid.
    Invalid,
    /// Not allowed by the ServiceAccount's list, by the policy or by the cloud.
    Denied,
    /// A secret, a version, a stage, or a key in a secret's JSON does not exist.
    NotFound,
    /// Credentials or a region are missing, the secret is disabled, or its value does not fit the class.
    Precondition,
    /// The cloud or the API server did not respond in time, or this process failed.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Invalid,
        Self::Denied,
        Self::NotFound,
        Self::Precondition,
        Self::Internal,
    ];

    /// The gRPC code.
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Precondition => Code::FailedPrecondition,
            Self::Internal => Code::Internal,
        }
    }

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Precondition => "precondition",
            Self::Internal => "internal",
        }
    }
}

impl From<ErrorKind> for Reason {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied | ErrorKind::CredentialsExpired => Self::Denied,
            ErrorKind::Disabled
            | ErrorKind::KeyUnavailable
            | ErrorKind::ClockSkew
            | ErrorKind::Credentials
            | ErrorKind::Configuration => Self::Precondition,
            ErrorKind::Conflict
            | ErrorKind::Throttled
            | ErrorKind::RateLimited
            | ErrorKind::Server
            | ErrorKind::Connect
            | ErrorKind::Timeout
            | ErrorKind::Malformed => Self::Internal,
        }
    }
}

/// Maximum size of a message, in bytes. gRPC sends it in a header, percent-encoded in up to three bytes for each,
/// and HTTP/2 clients may accept as little as 16 KiB of headers (hyper does).
const MAX_MESSAGE: usize = 4096;

/// Maximum number of failed objects that a message names.
const MAX_OBJECTS: usize = 20;

/// Maximum length of a name in a message, in characters; CSMS allows as many.
const MAX_NAME: usize = 64;

/// Room for how many objects failed, and how many of them are not named, in bytes.
const FRAME: usize = 64;

/// A Mount that failed; no file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    /// The category.
    pub reason: Reason,
    /// What failed, where, why, and what to do: one line of at most 4 KiB. Contains no value of a secret.
    pub message: String,
}

impl MountError {
    /// An error with a message, which is shortened and escaped as far as necessary.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: cut(escaped(&message.into()), MAX_MESSAGE),
        }
    }

    /// One error that lists all failed objects of a mount.
    pub fn of_objects(failures: &[ObjectError]) -> Self {
        let reason = failures
            .iter()
            .map(|f| f.reason)
            .min()
            .unwrap_or(Reason::Internal);
        let named = &failures[..failures.len().min(MAX_OBJECTS)];
        let mut message = match failures {
            [one] => return Self::new(reason, one.to_string()),
            many => format!("{} objects failed: ", many.len()),
        };
        // Add the details of an object as long as the names of all later ones still fit.
        let name = |failure: &ObjectError| one_line(&failure.object, MAX_NAME);
        let mut later_names: usize = named.iter().map(|f| name(f).len() + SEPARATOR.len()).sum();
        for (index, failure) in named.iter().enumerate() {
            if index > 0 {
                message.push_str(SEPARATOR);
            }
            later_names -= name(failure).len() + SEPARATOR.len();
            let text = escaped(&failure.to_string());
            let fits = message.len() + text.len() + later_names + FRAME < MAX_MESSAGE;
            message.push_str(&if fits { text } else { name(failure) });
        }
        let rest = failures.len() - named.len();
        if rest > 0 {
            message.push_str(&format!("{SEPARATOR}and {rest} more"));
        }
        Self::new(reason, message)
    }
}

/// Between two failures.
const SEPARATOR: &str = "; ";

impl From<ClassError> for MountError {
    fn from(error: ClassError) -> Self {
        Self::new(error.kind.into(), error.message)
    }
}

impl From<PublishSecretError> for MountError {
    fn from(error: PublishSecretError) -> Self {
        let reason = match error {
            PublishSecretError::Malformed(_) | PublishSecretError::Mistyped { .. } => {
                Reason::Invalid
            }
            PublishSecretError::Incomplete { .. } => Reason::Precondition,
        };
        Self::new(reason, error.to_string())
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MountError {}

impl From<MountError> for Status {
    fn from(error: MountError) -> Self {
        Self::new(error.reason.code(), error.message)
    }
}

/// One object of a mount that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError {
    /// The category.
    pub reason: Reason,
    /// `objectName`.
    pub object: String,
    /// The affected field, such as `objectVersion` or `jmesPath`.
    pub field: &'static str,
    /// What failed, why, and what to do.
    pub message: String,
}

impl ObjectError {
    /// A failed call to the cloud.
    pub fn from_api(object: &str, field: &'static str, error: &ApiError) -> Self {
        Self {
            reason: error.kind.into(),
            object: object.to_owned(),
            field,
            message: error.to_string(),
        }
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "object {:?}, {}: {}",
            self.object, self.field, self.message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes after which kubelet keeps the directory: see the module's documentation.
    const NOT_FINAL: [Code; 5] = [
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
    ];

    #[test]
    fn every_failure_has_a_final_code() {
        let cloud_failures = ErrorKind::ALL.into_iter().map(Reason::from);
        for reason in Reason::ALL.into_iter().chain(cloud_failures) {
            let status = Status::from(MountError::new(reason, "m"));
            assert!(
                !NOT_FINAL.contains(&status.code()),
                "{reason:?} became {status:?}"
            );
        }
    }

    /// Bytes of a message in its header: tonic percent-encodes all but printable ASCII, and some of that.
    fn encoded_len(text: &str) -> usize {
        let of = |c: char| match c {
            ' ' | '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}' => 3,
            '!'..='~' => 1,
            other => 3 * other.len_utf8(),
        };
        text.chars().map(of).sum()
    }

    #[test]
    fn messages_fit_into_a_header_in_any_alphabet() {
        for text in ["x", "%", "é", "密", "🔑", "\u{1b}", "\n"] {
            let error = MountError::new(Reason::Invalid, text.repeat(20_000));
            let status = Status::from(error);
            assert!(status.message().len() <= 4096, "{text}");
            assert!(encoded_len(status.message()) < 15_000, "{text}");
            assert!(status.message().ends_with("(truncated)"), "{text}");
            assert!(!status.message().contains(char::is_control), "{text}");
        }
    }

    #[test]
    fn twenty_failed_objects_are_named_and_the_rest_counted() {
        let failures: Vec<_> = (0..200)
            .map(|i| ObjectError {
                reason: if i == 107 {
                    Reason::Denied
                } else {
                    Reason::NotFound
                },
                object: format!("secret-number-{i:03}-{}", "x".repeat(46)),
                field: "objectName",
                message: "m".repeat(300),
            })
            .collect();
        let error = MountError::of_objects(&failures);
        assert_eq!(error.reason, Reason::Denied);
        let status = Status::from(error);
        assert!(status.message().len() <= 4096);
        assert!(
            status
                .message()
                .starts_with("200 objects failed: object \"secret-number-000")
        );
        for failure in &failures[..20] {
            assert!(status.message().contains(&failure.object));
        }
        assert!(!status.message().contains(&failures[20].object));
        assert!(status.message().ends_with("; and 180 more"));
    }
}
