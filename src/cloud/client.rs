//! The client for Huawei Cloud on which the clients of single services build.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Instant;
use url::Url;

use super::call::{Call, CallLoop, Signer};
use super::config::CloudConfig;
use super::credentials::fingerprint::fingerprint;
use super::credentials::{CredentialChain, Credentials, EcsAgency, Identity, Source};
use super::endpoints::Endpoints;
use super::error::ApiError;
use super::iam::{self, Projects};
use super::rate_limit::{RateLimiter, Turn};
use super::region::Region;
use super::transport::Transport;
use super::transport::connect::{Connectors, Dial, tcp};
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;

/// The credentials, region and project of requests, and whose they are.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Region of the secrets.
    pub region: Region,
    /// Project of the secrets; looked up once in IAM if `None`.
    pub project: Option<String>,
    /// Keys that sign.
    pub credentials: Credentials,
    /// Whose share of the rate limit the requests use.
    pub turn: Turn,
}

/// The client. Clones share connections, limits and lookups.
#[derive(Clone)]
pub struct Cloud {
    shared: Arc<CloudShared>,
    limiter: Arc<RateLimiter>,
}

struct CloudShared {
    transport: Arc<Transport>,
    calls: Arc<CallLoop>,
    clock: Clock,
    jitter: Jitter,
    endpoints: Endpoints,
    projects: Projects,
    home: Option<Region>,
}

impl Cloud {
    /// Prepares a client. Makes no network calls.
    ///
    /// Reads from `env`: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` (either case) and the SDK's
    /// `HUAWEICLOUD_SDK_REGION_CSMS_<REGION>`, `HUAWEICLOUD_SDK_REGION_KMS_<REGION>` and `HUAWEICLOUD_SDK_IAM_ENDPOINT`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for an endpoint, proxy or CA bundle that cannot be used.
    ///
    /// [`ErrorKind::Configuration`]: super::ErrorKind::Configuration
    pub fn new(
        config: CloudConfig,
        env: &Env,
        clock: Clock,
        jitter: Jitter,
        metrics: CloudMetrics,
    ) -> Result<Self, ApiError> {
        Self::with_dial(config, env, clock, jitter, metrics, tcp())
    }

    /// Like [`Cloud::new`], over connections that `dial` opens.
    ///
    /// # Errors
    /// Those of [`Cloud::new`].
    pub fn with_dial(
        config: CloudConfig,
        env: &Env,
        clock: Clock,
        jitter: Jitter,
        metrics: CloudMetrics,
        dial: Dial,
    ) -> Result<Self, ApiError> {
        let endpoints = Endpoints::new(&config, env)?;
        let connectors = Connectors::new(config.ca_bundle.as_deref(), env, dial)?;
        let transport = Arc::new(Transport::new(connectors, metrics));
        let calls = CallLoop::new(Arc::clone(&transport), clock.clone(), jitter.clone());
        let calls = Arc::new(calls);
        let limiter = || RateLimiter::new(config.qps, config.burst, "--csms-qps");
        let projects = Projects::new(Arc::clone(&calls), limiter(), config.project_setting);
        Ok(Self {
            shared: Arc::new(CloudShared {
                transport,
                calls,
                clock,
                jitter,
                endpoints,
                projects,
                home: config.home,
            }),
            limiter: Arc::new(limiter()),
        })
    }

    /// The same client with a separate rate limit: `qps` calls per second, without a burst. `flag` is
    /// the flag that sets it.
    pub fn with_rate_limit(&self, qps: NonZeroU32, flag: &'static str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            limiter: Arc::new(RateLimiter::new(qps, NonZeroU32::MIN, flag)),
        }
    }

    /// The process's own credentials: environment, then credentials file, then the ECS agency, or
    /// `only` one of them. The first source that is configured is used; if it fails, the error is
    /// reported and no other source is tried. Nothing is read before keys are needed, and until a source
    /// is configured, each use tries all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`] if the environment is used and incomplete.
    ///
    /// [`ErrorKind::Credentials`]: super::ErrorKind::Credentials
    pub fn own_credentials(
        &self,
        env: &Env,
        only: Option<Source>,
    ) -> Result<Credentials, ApiError> {
        let shared = &self.shared;
        let agency = EcsAgency::new(
            Arc::clone(&shared.transport),
            shared.clock.clone(),
            shared.jitter.clone(),
            shared.endpoints.metadata().clone(),
        );
        let chain = CredentialChain::new(agency, env, only)?;
        Ok(Credentials::own(chain, only))
    }

    /// The project of a caller's secrets: the one it sets, else that of the credentials, else the one
    /// that IAM has for the region, looked up once per identity and region.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if IAM knows none or several, and those of any call.
    ///
    /// [`ErrorKind::Configuration`]: super::ErrorKind::Configuration
    pub async fn project(&self, caller: &Caller, deadline: Instant) -> Result<String, ApiError> {
        if let Some(project) = &caller.project {
            return iam::check(project.clone());
        }
        if self.is_home(&caller.region)
            && let Some(project) = caller.credentials.project(deadline).await?
        {
            return iam::check(project);
        }
        let base = self.shared.endpoints.iam(&caller.region)?;
        let (region, credentials) = (&caller.region, &caller.credentials);
        (self.shared.projects)
            .get(base, region, credentials, &caller.turn, deadline)
            .await
    }

    /// An identity by which a caller is recognized after a restart: the same keys, or again the node's
    /// agency, at the same service and project. Sends nothing.
    ///
    /// `None` while the keys are unknown, or if they are no longer those of `identity`.
    pub async fn fingerprint(&self, caller: &Caller, identity: &Identity) -> Option<Identity> {
        let parts = caller.credentials.fingerprint_parts().await?;
        let service = self.shared.endpoints.csms(&caller.region).ok()?;
        // Without an explicit project it follows from the configuration or from the keys.
        let project = match &caller.project {
            Some(_) => None,
            None => parts.project.filter(|_| self.is_home(&caller.region)),
        };
        let found = fingerprint(parts.keys.as_ref(), &service, project.as_deref());
        // The keys may have changed meanwhile.
        (caller.credentials.identity() == *identity).then_some(found)
    }

    /// Whether the project of the process's own credentials belongs to this region.
    fn is_home(&self, region: &Region) -> bool {
        let home = self.shared.home.as_ref();
        home.is_none_or(|home| home == region)
    }

    /// The base URL of CSMS in a region.
    pub(super) fn csms_endpoint(&self, region: &Region) -> Result<Url, ApiError> {
        self.shared.endpoints.csms(region)
    }

    /// The base URL of KMS in a region.
    pub(super) fn kms_endpoint(&self, region: &Region) -> Result<Url, ApiError> {
        self.shared.endpoints.kms(region)
    }

    /// The rate limit of this clone.
    pub(super) fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &CloudMetrics {
        self.shared.transport.metrics()
    }

    /// Sends a call through the loop.
    pub(super) async fn send<T>(
        &self,
        call: &Call<'_>,
        signer: Signer<'_>,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        self.shared.calls.run(call, signer, deadline, read).await
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}
