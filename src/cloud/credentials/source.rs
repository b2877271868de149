//! Where the process's own credentials may come from.

use crate::cloud::error::{ApiError, ErrorKind};

/// A source of the process's own credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `HUAWEICLOUD_SDK_AK`, `HUAWEICLOUD_SDK_SK`, `HUAWEICLOUD_SDK_SECURITY_TOKEN`.
    Environment,
    /// `HUAWEICLOUD_SDK_CREDENTIALS_FILE`, else `~/.huaweicloud/credentials`.
    File,
    /// The agency of the ECS node, through the metadata service.
    Agency,
}

impl Source {
    /// All sources, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Environment, Self::File, Self::Agency];

    /// The name in class parameters, errors and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::File => "file",
            Self::Agency => "agency",
        }
    }

    /// An error that names this source.
    pub(super) fn error(self, why: &str) -> ApiError {
        ApiError::local(
            "GetCredentials",
            ErrorKind::Credentials,
            format!("credentials from {}: {why}", self.name()),
        )
    }
}

/// Why a source has no keys.
#[derive(Clone, Debug)]
pub(super) enum SourceError {
    /// It is not configured; the next source is tried. With the reason.
    NotConfigured(String),
    /// It is configured and failed; no other source is tried.
    Failed(ApiError),
}

impl SourceError {
    /// The error for callers, once the source is in use or is the only one allowed.
    pub(super) fn into_api_error(self, source: Source) -> ApiError {
        match self {
            Self::NotConfigured(why) => source.error(&why),
            Self::Failed(error) => error,
        }
    }
}
