//! The client of Huawei Cloud: CSMS, and what it takes to call it (IAM, the metadata service).
//!
//! Knows neither gRPC nor Kubernetes. A call goes through one loop in `http`:
//! limit → sign → send → classify → wait.

mod answer;
mod connect;
pub mod credentials;
pub mod csms;
pub mod env;
pub mod error;
mod flight;
mod http;
mod iam;
mod lasting;
mod limit;
pub mod region;
mod retry;
pub mod sign;
#[cfg(test)]
mod testing;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, Jitter};
use crate::observe::metrics::CloudMetrics;

pub use connect::{Dial, Socket, tcp};
pub use credentials::{AccessKeys, Credentials, Identity, Source};
pub use csms::{NewSecret, Secret, SecretValue, SecretVersion, Stage, VersionMetadata};
pub use env::Env;
pub use error::{ApiError, Kind};
pub use region::Region;

/// How to reach the cloud. Endpoints are `http(s)://host[:port]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// CSMS, instead of the region's own; `{region}` is filled in.
    pub csms_endpoint: Option<String>,
    /// IAM, instead of the region's own; `{region}` is filled in.
    pub iam_endpoint: Option<String>,
    /// The metadata service, instead of `http://169.254.169.254`.
    pub metadata_endpoint: Option<String>,
    /// Region of the project that comes with the process's own keys; that of all where not given.
    pub home: Option<Region>,
    /// PEM file of the only certificate authorities to trust, instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// CSMS calls per second, retries included.
    pub qps: NonZeroU32,
    /// CSMS calls that may be made at once after a quiet time.
    pub burst: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            csms_endpoint: None,
            iam_endpoint: None,
            metadata_endpoint: None,
            home: None,
            ca_bundle: None,
            qps: number(5),
            burst: number(20),
        }
    }
}

/// Who asks, and where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Region of the secrets.
    pub region: Region,
    /// Project of the secrets; looked up once in IAM where it is not given.
    pub project: Option<String>,
    /// Keys that sign.
    pub credentials: Credentials,
}

/// The client. Clones share connections, limits and what was learned.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>, Arc<limit::Limit>);

struct Inner {
    sender: Arc<http::Sender>,
    endpoints: region::Endpoints,
    projects: iam::Projects,
    home: Option<Region>,
}

impl Cloud {
    /// Prepares a client; sends nothing.
    ///
    /// Reads from `env`: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` (either case) and the SDK's
    /// `HUAWEICLOUD_SDK_REGION_CSMS_<REGION>` and `HUAWEICLOUD_SDK_IAM_ENDPOINT`.
    ///
    /// # Errors
    /// [`Kind::Configuration`] for an endpoint, proxy or CA bundle that cannot be used.
    pub fn new(
        config: Config,
        env: &Env,
        clock: Clock,
        jitter: Jitter,
        metrics: CloudMetrics,
    ) -> Result<Self, ApiError> {
        let dial = connect::tcp();
        Self::with_dial(config, env, clock, jitter, metrics, dial)
    }

    /// As [`Cloud::new`], over connections from elsewhere.
    ///
    /// # Errors
    /// The same.
    pub fn with_dial(
        config: Config,
        env: &Env,
        clock: Clock,
        jitter: Jitter,
        metrics: CloudMetrics,
        dial: connect::Dial,
    ) -> Result<Self, ApiError> {
        let endpoints = region::Endpoints::new(&config, env)?;
        let connectors = connect::Connectors::new(config.ca_bundle.as_deref(), env, dial)?;
        let sender = http::Sender::new(connectors, clock, jitter, metrics);
        let inner = Inner {
            sender: Arc::new(sender),
            endpoints,
            projects: iam::Projects::default(),
            home: config.home,
        };
        let limit = limit::Limit::new(config.qps, config.burst, "--csms-qps");
        Ok(Self(Arc::new(inner), Arc::new(limit)))
    }

    /// The same client with a limit of its own: `qps` calls a second, and no burst. `flag` sets it.
    pub fn with_limit(&self, qps: NonZeroU32, flag: &'static str) -> Self {
        let limit = limit::Limit::new(qps, NonZeroU32::MIN, flag);
        Self(Arc::clone(&self.0), Arc::new(limit))
    }

    /// The process's own credentials: environment, then credentials file, then the ECS agency, or
    /// `only` one of them. Only a source that is not configured falls through; one that is
    /// configured and fails stops with its name. Nothing is read before the keys are needed, and
    /// while no source is configured they are all asked again.
    ///
    /// # Errors
    /// [`Kind::Credentials`] where `only` names a source that can already be seen to be wrong.
    pub fn own_credentials(
        &self,
        env: &Env,
        only: Option<Source>,
    ) -> Result<Credentials, ApiError> {
        credentials::own(
            Arc::clone(&self.0.sender),
            self.0.endpoints.metadata().clone(),
            env,
            only,
        )
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}
