//! What the parts of the controller share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use crate::class::resolver::Resolver;
use crate::kube::{AllowListMode, Classes, Events};
use crate::policy::PolicyWatch;
use crate::telemetry::metrics::RotationMetrics;
use crate::util::clock::Clock;

/// How the controller polls.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Polls per second.
    pub qps: NonZeroU32,
    /// Whether ServiceAccounts must list the secrets of their pods.
    pub allow_list: AllowListMode,
    /// Name of this process in the election; a random suffix makes it unique.
    pub identity: String,
}

pub(super) struct Context {
    pub(super) config: ControllerConfig,
    pub(super) client: Client,
    pub(super) classes: Classes,
    pub(super) resolver: Arc<Resolver>,
    pub(super) policy: PolicyWatch,
    pub(super) events: Events,
    pub(super) provider_names: Vec<String>,
    pub(super) interval: Duration,
    pub(super) deletions: watch::Receiver<u64>,
    pub(super) clock: Clock,
    pub(super) metrics: RotationMetrics,
}
