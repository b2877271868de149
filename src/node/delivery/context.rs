//! What the parts of delivery share.

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::SecretCache;
use crate::kube::{Classes, Events};
use crate::node::volumes::Volumes;
use crate::policy::PolicyWatch;
use crate::telemetry::metrics::RotationMetrics;
use crate::util::clock::{Clock, Jitter};

pub(super) struct Context {
    pub(super) cache: SecretCache,
    pub(super) volumes: std::sync::Arc<Volumes>,
    pub(super) classes: Classes,
    pub(super) policy: PolicyWatch,
    pub(super) events: Events,
    pub(super) provider_names: Vec<String>,
    pub(super) interval: Duration,
    pub(super) spread: Duration,
    pub(super) clock: Clock,
    pub(super) jitter: Jitter,
    pub(super) metrics: RotationMetrics,
    /// Wakes the reconciler.
    pub(super) wake: Notify,
    pub(super) stop: CancellationToken,
}

impl Context {
    /// Runs a task until it ends or delivery stops.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }
}
