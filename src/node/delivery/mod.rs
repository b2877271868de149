//! Delivery: gets new versions and edited classes into mounted volumes within seconds.
//!
//! | step | file | does |
//! |---|---|---|
//! | 1 watch | `revision_watch`, this file | applies SecretRevisions and heartbeats to the cache |
//! | 2 refresh | `refresh` | fetches new versions into the cache; without a leader, polls |
//! | 3 nudge | `nudge`, `csi_client` | makes the driver update outdated volumes |
//!
//! The loop in `reconciler` compares secrets and volumes with the cache, and starts steps 2 and 3. A nudge
//! calls NodePublishVolume on the driver's own CSI socket, as kubelet would 60 to 90 s later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cache::SecretCache;
use crate::kube::{Classes, Events, LeaseWatch, Pods};
use crate::node::volumes::Volumes;
use crate::policy::PolicyWatch;
use crate::telemetry::metrics::RotationMetrics;
use crate::util::clock::{Clock, Jitter};

mod context;
mod csi_client;
mod nudge;
mod reconciler;
mod refresh;
mod revision_watch;

use context::Context;
use csi_client::CsiClient;
use nudge::Nudger;
use reconciler::Reconciler;

/// How changes are delivered.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Minimum time over which nodes spread the fetch of a version.
    pub spread: Duration,
    /// Name of this node; without it, volumes are left to kubelet.
    pub node_name: Option<String>,
    /// The driver's CSI socket; without it, volumes are left to kubelet.
    pub driver_socket: Option<PathBuf>,
}

/// What delivery depends on.
pub struct DeliveryDependencies {
    /// The API server.
    pub client: Client,
    /// The classes of the cluster.
    pub classes: Classes,
    /// The Lease, which carries the leader's heartbeat.
    pub lease: LeaseWatch,
    /// The cached versions.
    pub cache: SecretCache,
    /// The mounted volumes.
    pub volumes: Arc<Volumes>,
    /// What namespaces may use; other secrets are not refreshed.
    pub policy: PolicyWatch,
    /// Where Events are written.
    pub events: Events,
    /// The names by which classes refer to this provider.
    pub provider_names: Vec<String>,
    /// `rotation_poll_interval`, for classes that set none.
    pub interval: Duration,
    /// Changes when a SecretRevision was deleted.
    pub deletions: watch::Sender<u64>,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub jitter: Jitter,
    /// The metrics of rotation.
    pub metrics: RotationMetrics,
}

/// Starts delivery, which runs until `stop` is cancelled.
pub fn start(config: DeliveryConfig, dependencies: DeliveryDependencies, stop: CancellationToken) {
    let DeliveryDependencies {
        client,
        classes,
        lease,
        cache,
        volumes,
        policy,
        events,
        provider_names,
        interval,
        deletions,
        clock,
        jitter,
        metrics,
    } = dependencies;
    let context = Arc::new(Context {
        cache,
        volumes,
        classes,
        policy,
        events,
        provider_names,
        interval,
        spread: config.spread,
        clock,
        jitter,
        metrics,
        wake: Notify::new(),
        stop,
    });
    let nudger = match (&config.driver_socket, &config.node_name) {
        (Some(socket), Some(node)) => {
            let (pods, watch) = Pods::watch(client.clone(), node);
            context.spawn(watch);
            let nudger = Arc::new(Nudger::new(CsiClient::new(socket), pods));
            context.spawn(Arc::clone(&nudger).run_cleanup(Arc::clone(&context)));
            Some(nudger)
        }
        _ => {
            info!(
                "no driver socket or no node name is set: kubelet delivers new versions when it remounts \
                 volumes"
            );
            None
        }
    };
    context.spawn(revision_watch::run(Arc::clone(&context), client, deletions));
    context.spawn(apply_heartbeats(Arc::clone(&context), lease));
    context.spawn(Reconciler::new(Arc::clone(&context), nudger).run());
}

async fn apply_heartbeats(context: Arc<Context>, lease: LeaseWatch) {
    let mut heartbeats = lease.heartbeats();
    while heartbeats.changed().await.is_ok() {
        let at = *heartbeats.borrow_and_update();
        if let Some(at) = at {
            context.cache.heartbeat(at);
        }
    }
}
