//! How to reach the cloud.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::region::Region;

/// How the owner of a SecretProviderClass sets its project.
const PROJECT_PARAMETER: &str = "projectId in the SecretProviderClass";

/// How to reach the cloud. Endpoints are `http(s)://host[:port]`.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// CSMS, instead of the region's own; `{region}` is substituted.
    pub csms_endpoint: Option<String>,
    /// KMS, instead of `csms_endpoint` or the region's own; `{region}` is substituted.
    pub kms_endpoint: Option<String>,
    /// IAM, instead of the region's own; `{region}` is substituted.
    pub iam_endpoint: Option<String>,
    /// The metadata service, instead of `http://169.254.169.254`.
    pub metadata_endpoint: Option<String>,
    /// The region to which the project of the process's own credentials belongs; any region if `None`.
    pub home: Option<Region>,
    /// How the user sets the project, for errors.
    pub project_setting: &'static str,
    /// PEM file with the only CA certificates to trust, instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// CSMS and KMS calls per second, retries included.
    pub qps: NonZeroU32,
    /// CSMS and KMS calls that may be made at once after a quiet period.
    pub burst: NonZeroU32,
}

impl CloudConfig {
    /// All services at one URL, with a rate limit that is never reached: for an emulator.
    #[cfg(any(test, feature = "sim"))]
    pub fn emulated(url: &str) -> Self {
        let qps = NonZeroU32::MIN.saturating_add(99_999);
        Self {
            csms_endpoint: Some(url.to_owned()),
            kms_endpoint: None,
            iam_endpoint: Some(url.to_owned()),
            metadata_endpoint: Some(url.to_owned()),
            home: None,
            project_setting: PROJECT_PARAMETER,
            ca_bundle: None,
            qps,
            burst: qps,
        }
    }
}

impl Default for CloudConfig {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            csms_endpoint: None,
            kms_endpoint: None,
            iam_endpoint: None,
            metadata_endpoint: None,
            home: None,
            project_setting: PROJECT_PARAMETER,
            ca_bundle: None,
            qps: number(5),
            burst: number(20),
        }
    }
}
