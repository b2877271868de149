//! The one edge where failures become gRPC statuses.
//!
//! Only codes that kubelet takes as final are used. After a first mount that fails with
//! UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED, CANCELLED or DEADLINE_EXCEEDED kubelet keeps the
//! fresh folder, the driver then finds it young and answers OK without mounting, and the pod
//! starts with an empty folder for good. (Driver v1.6.0, nodeserver.go; kubelet, csi_client.go.)

use std::fmt;

use tonic::{Code, Status};

use crate::cloud::error::{ApiError, Kind};

/// What kind of failure it is, for the gRPC code and the metric label.
///
/// The order is the order of precedence where objects of one mount fail in different ways: what
/// only a person can mend comes before what may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request or the SecretProviderClass is wrong.
    Invalid,
    /// Not allowed, by the ServiceAccount's list or by the cloud.
    Denied,
    /// A secret, version, stage or key in it does not exist.
    NotFound,
    /// Something must be set up first: credentials, region, a disabled secret, a size.
    Precondition,
    /// The cloud or the API server did not answer in time, or this process failed.
    Internal,
}

impl Reason {
    /// All reasons, for tests that walk them.
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

impl From<Kind> for Reason {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::Invalid,
            Kind::NotFound => Self::NotFound,
            Kind::Denied | Kind::CredentialsExpired => Self::Denied,
            Kind::Disabled | Kind::ClockSkew | Kind::Credentials | Kind::Configuration => {
                Self::Precondition
            }
            Kind::Conflict
            | Kind::Throttled
            | Kind::Server
            | Kind::Connect
            | Kind::Timeout
            | Kind::Malformed => Self::Internal,
        }
    }
}

/// Most bytes of a status message on the wire. It travels in a header, and HTTP/2 clients may take as
/// little as 16 KiB of headers (hyper does); 200 names of 64 bytes fit.
const MAX_MESSAGE: usize = 15_000;

/// Bytes of a character in that header, where tonic writes all but these as `%XX`.
fn on_the_wire(character: char) -> usize {
    match character {
        ' ' | '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}' => 3,
        '!'..='~' => 1,
        other => 3 * other.len_utf8(),
    }
}

/// `; ` between two failures.
const SEPARATOR: usize = 4;

fn length(text: &str) -> usize {
    text.chars().map(on_the_wire).sum()
}

/// A Mount that failed: nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    /// What kind of failure.
    pub reason: Reason,
    /// What was wrong, where, why, and what to do. Holds no secret.
    pub message: String,
}

impl MountError {
    /// A failure with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// One failure that lists all failing objects of a mount.
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
        // All are named; how each failed is told as long as there is room for the names after it.
        let mut names: usize = failures.iter().map(|f| length(&f.object) + SEPARATOR).sum();
        for (index, failure) in failures.iter().enumerate() {
            if index > 0 {
                message.push_str("; ");
            }
            names -= length(&failure.object) + SEPARATOR;
            let text = failure.to_string();
            let fits = length(&message) + length(&text) + names < MAX_MESSAGE;
            message.push_str(if fits { &text } else { &failure.object });
        }
        Self::new(reason, message)
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
            let fits = left.checked_sub(on_the_wire(*character));
            left = fits.unwrap_or(0);
            fits.is_none()
        });
        if let Some((at, _)) = cut {
            message.truncate(at);
            message.push_str(" … (cut)");
        }
        Self::new(error.reason.code(), message)
    }
}

/// One object of a mount that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError {
    /// What kind of failure.
    pub reason: Reason,
    /// `objectName`.
    pub object: String,
    /// Field that decides what failed, such as `objectVersion` or `jmesPath`.
    pub field: &'static str,
    /// What was wrong, why, and what to do.
    pub message: String,
}

impl ObjectError {
    /// A call to the cloud that failed for an object.
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

    /// Codes after which kubelet keeps the folder (see the top of this file).
    const NOT_FINAL: [Code; 5] = [
        Code::Unavailable,
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
    ];

    #[test]
    fn every_failure_is_final() {
        let of_cloud = Kind::ALL.into_iter().map(Reason::from);
        for reason in Reason::ALL.into_iter().chain(of_cloud) {
            let status = Status::from(MountError::new(reason, "m"));
            assert!(
                !NOT_FINAL.contains(&status.code()),
                "{reason:?} became {status:?}"
            );
        }
    }

    #[test]
    fn messages_fit_into_a_header_however_they_are_written() {
        for text in ["x", "%", "é", "密", "🔑"] {
            let error = MountError::new(Reason::Invalid, text.repeat(20_000));
            let status = Status::from(error);
            assert!(length(status.message()) < MAX_MESSAGE + 64, "{text}");
            assert!(status.message().ends_with("(cut)"), "{text}");
        }
    }

    #[test]
    fn all_failing_objects_are_named() {
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
