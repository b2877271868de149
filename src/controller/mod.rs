//! What runs once in a cluster: the elected leader polls CSMS for all nodes.
//!
//! | step | file | does |
//! |---|---|---|
//! | 1 election | `election` | the pods elect a leader through a Lease |
//! | 2 plan | `plan` | finds out which secrets pods follow |
//! | 3 poll | `scheduler`, `poll`, `probe` | polls the versions of each such secret once per interval |
//! | 4 publish | `publish` | writes the versions to SecretRevisions |
//!
//! `scheduler` is the loop of the leader and runs steps 2 to 4. The leader reads values only if its
//! permissions leave no other way, and never publishes them.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::class::resolver::Resolver;
use crate::cloud::Cloud;
use crate::kube::{Classes, Events, LeaseWatch};
use crate::policy::PolicyWatch;
use crate::telemetry::metrics::RotationMetrics;
use crate::util::clock::{Clock, Jitter};

mod context;
mod election;
mod plan;
mod poll;
mod probe;
mod publish;
mod scheduler;

use context::Context;
pub use context::ControllerConfig;
use election::{Heartbeat, LeaderElection};

/// The flag that sets the rate limit of polls.
const QPS_FLAG: &str = "--rotation-qps";

/// What the controller depends on.
pub struct ControllerDependencies {
    /// The API server.
    pub client: Client,
    /// The classes of the cluster.
    pub classes: Classes,
    /// The Lease of the election.
    pub lease: LeaseWatch,
    /// The cloud.
    pub cloud: Cloud,
    /// Resolves the region, project and credentials of classes.
    pub resolver: Arc<Resolver>,
    /// What namespaces may use; other secrets are not polled.
    pub policy: PolicyWatch,
    /// Where Events are written.
    pub events: Events,
    /// The names by which classes refer to this provider.
    pub provider_names: Vec<String>,
    /// `rotation_poll_interval`, for classes that set none.
    pub interval: Duration,
    /// Changes when a SecretRevision was deleted.
    pub deletions: watch::Receiver<u64>,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub jitter: Jitter,
    /// The metrics of rotation.
    pub metrics: RotationMetrics,
}

/// Takes part in the election, and leads while elected. Releases the Lease and returns when `stop` is
/// cancelled.
pub async fn run(
    config: ControllerConfig,
    dependencies: ControllerDependencies,
    stop: CancellationToken,
) {
    let ControllerDependencies {
        client,
        classes,
        lease,
        cloud,
        resolver,
        policy,
        events,
        provider_names,
        interval,
        deletions,
        clock,
        jitter,
        metrics,
    } = dependencies;
    let cloud = cloud.with_rate_limit(config.qps, QPS_FLAG);
    let identity = format!("{}_{:08x}", config.identity, jitter.number());
    let election = LeaderElection::new(lease, identity, interval, clock.clone(), jitter);
    let context = Context {
        config,
        client,
        classes,
        resolver,
        policy,
        events,
        provider_names,
        interval,
        deletions,
        clock,
        metrics,
    };
    let heartbeat = Heartbeat::default();
    let lead = || scheduler::lead(&context, cloud.clone(), &heartbeat);
    election.run(&stop, &heartbeat, lead).await;
}
