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
            | ErrorKind::ClockSkew
            | ErrorKind::Credentials
            | ErrorKind::Configuration => Self::Precondition,
            ErrorKind::Conflict
            | ErrorKind::Throttled
            | ErrorKind::Server
            | ErrorKind::Connect
            | ErrorKind::Timeout
            | ErrorKind::Malformed => Self::Internal,
        }
    }
}

/// Maximum size of a status message on the wire, in bytes. gRPC sends the message in a header, and HTTP/2
/// clients may accept as little as 16 KiB of headers (hyper does). 200 names of 64 bytes fit.
const MAX_MESSAGE: usize = 15_000;

/// Bytes of a character in that header, after tonic's percent-encoding.
fn encoded_char_len(character: char) -> usize {
    match character {
        ' ' | '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}' => 3,
        '!'..='~' => 1,
        other => 3 * other.len_utf8(),
    }
}

fn encoded_len(text: &str) -> usize {
    text.chars().map(encoded_char_len).sum()
}

/// Encoded length of `; ` between two failures.
const SEPARATOR_LEN: usize = 4;

/// A Mount that failed; no file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    /// The category.
    pub reason: Reason,
    /// What failed, where, why, and what to do. Contains no value of a secret.
    pub message: String,
}

impl MountError {
    /// An error with a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// One error that lists all failed objects of a mount.
    pub fn of_objects(failures: &[ObjectError]) -> Self {
        let reason = failures
            .iter()
            .map(|f| f.reason)
            .min()
            .unwrap_or(Reason::Internal);
        let mut message = match failures {
            [one] => return Self::new(reason, one.to_string()),
            many => format!("{} objects failed: ", many.len()),
        };
        // Name every object. Add its details as long as the names of all later objects still fit.
        let name_len = |failure: &ObjectError| encoded_len(&failure.object) + SEPARATOR_LEN;
        let mut later_names: usize = failures.iter().map(name_len).sum();
        for (index, failure) in failures.iter().enumerate() {
            if index > 0 {
                message.push_str("; ");
            }
            later_names -= name_len(failure);
            let text = failure.to_string();
            let fits = encoded_len(&message) + encoded_len(&text) + later_names < MAX_MESSAGE;
            message.push_str(if fits { &text } else { &failure.object });
        }
        Self::new(reason, message)
    }
}

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
        let mut message = error.message;
        let mut left = MAX_MESSAGE;
        let cut = message.char_indices().find(|(_, character)| {
            let fits = left.checked_sub(encoded_char_len(*character));
            left = fits.unwrap_or(0);
            fits.is_none()
        });
        if let Some((at, _)) = cut {
            message.truncate(at);
            message.push_str(" … (truncated)");
        }
        Self::new(error.reason.code(), message)
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

    #[test]
    fn messages_fit_into_a_header_in_any_alphabet() {
        for text in ["x", "%", "é", "密", "🔑"] {
            let error = MountError::new(Reason::Invalid, text.repeat(20_000));
            let status = Status::from(error);
            assert!(encoded_len(status.message()) < MAX_MESSAGE + 64, "{text}");
            assert!(status.message().ends_with("(truncated)"), "{text}");
        }
    }

    #[test]
    fn all_failed_objects_are_named() {
        let failures: Vec<_> = (0..200)
            .map(|i| ObjectError {
                reason: if i == 7 {
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
        for failure in &failures {
            assert!(status.message().contains(&failure.object));
        }
    }
}
