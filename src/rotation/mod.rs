//! Rotation: finds out that a secret moved, and gets the new bytes into pods at once.
//!
//! One of the cluster's providers is the leader (`leader.rs`): it asks CSMS for each secret once an
//! interval and writes what moved into SecretRevisions. Every node (`node.rs`) hears of it, fetches
//! what its pods use, once, and has their volumes filled anew through the driver (`nudge.rs`), as
//! it does when a SecretProviderClass is edited. Where no leader speaks, and for pods that bring keys
//! of their own, each node asks for itself.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::{Clock, Jitter};
use crate::cloud::Cloud;
use crate::kube::{Beat, Classes, Lease, Pods};
use crate::observe::metrics::Metrics;
use crate::provider::Provider;

mod ask;
mod driver;
mod leader;
mod listen;
mod measure;
mod node;
mod nudge;
mod plan;
mod question;
mod write;

use driver::Driver;
use measure::Measure;
use node::Node;
use nudge::Nudger;

/// Where the limit of the leader's questions is set.
const QPS_FLAG: &str = "--rotation-qps";

/// How often it is looked whether a pod ended, if nothing tells of it.
const CLEAN: Duration = Duration::from_secs(10);

/// What rotation is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The leader's questions in a second.
    pub qps: NonZeroU32,
    /// Over what time nodes spread the fetch of what moved, at least.
    pub spread: Duration,
    /// The node's name; without it volumes are left to kubelet.
    pub node_name: Option<String>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// The driver's CSI socket; without it volumes are left to kubelet.
    pub driver_socket: Option<PathBuf>,
}

/// What rotation works with.
pub struct With {
    /// The API server.
    pub client: Client,
    /// Its classes.
    pub classes: Classes,
    /// The cloud.
    pub cloud: Cloud,
    /// The provider whose volumes are looked after.
    pub provider: Provider,
    /// Names by which classes name it.
    pub provider_names: Vec<String>,
    /// `rotation_poll_interval`, for classes that give none.
    pub interval: Duration,
    /// The date.
    pub clock: Clock,
    /// Randomness.
    pub jitter: Jitter,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// What all parts of rotation share.
struct Parts {
    config: Config,
    provider: Provider,
    provider_names: Vec<String>,
    interval: Duration,
    classes: Classes,
    clock: Clock,
    jitter: Jitter,
    metrics: Measure,
    /// Something may have moved.
    look_again: Notify,
    /// Moves when a SecretRevision was deleted.
    deletions: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Parts {
    /// Runs beside, until the process or the provider ends.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }
}

/// Runs until `stop`; then gives the Lease back.
pub async fn run(config: Config, with: With, stop: CancellationToken) {
    let With {
        client,
        classes,
        cloud,
        provider,
        provider_names,
        interval,
        clock,
        jitter,
        metrics,
    } = with;
    let cloud = cloud.with_limit(config.qps, QPS_FLAG);
    let holder = format!(
        "{}_{:08x}",
        config.node_name.as_deref().unwrap_or("dew-provider"),
        fastrand::u32(..)
    );
    let lease = Lease::new(
        client.clone(),
        &config.namespace,
        holder,
        interval,
        clock.clone(),
        jitter.clone(),
    );
    let parts = Arc::new(Parts {
        config,
        provider,
        provider_names,
        interval,
        classes,
        clock,
        jitter,
        metrics: Measure::new(&metrics),
        look_again: Notify::new(),
        deletions: watch::Sender::new(0),
        stop: stop.clone(),
    });

    let nudger = nudger(&parts, &client);
    parts.spawn(listen::listen(Arc::clone(&parts), client.clone()));
    parts.spawn(lease.clone().watch());
    parts.spawn(hear_beats(Arc::clone(&parts), lease.clone()));
    parts.spawn(Node::new(Arc::clone(&parts), nudger).run());
    let beat = Beat::default();
    let lead = || leader::lead(&parts, client.clone(), cloud.clone(), &beat);
    lease.lead(&stop, &beat, lead).await;
}

/// What calls the driver, where both its socket and this node's pods can be seen.
fn nudger(parts: &Arc<Parts>, client: &Client) -> Option<Arc<Nudger>> {
    let config = &parts.config;
    let (Some(socket), Some(node)) = (&config.driver_socket, &config.node_name) else {
        info!(
            "new versions reach volumes when kubelet looks after them: no driver socket, or no node name"
        );
        return None;
    };
    let (pods, watch) = Pods::watch(client.clone(), node);
    parts.spawn(watch);
    let mut changes = pods.changes();
    let nudger = Arc::new(Nudger::new(Driver::new(socket), pods));
    let cleaner = Arc::clone(&nudger);
    let of = Arc::clone(parts);
    parts.spawn(async move {
        loop {
            let changed = timeout(CLEAN, changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            cleaner.clean_ended(&of).await;
            of.look_again.notify_one();
        }
    });
    Some(nudger)
}

async fn hear_beats(parts: Arc<Parts>, lease: Lease) {
    let mut beats = lease.beats();
    while beats.changed().await.is_ok() {
        let at = *beats.borrow_and_update();
        if let Some(at) = at {
            parts.provider.store().beat(at);
        }
    }
}
