//! The Lease of the leader election, watched: who holds it, and the leader's heartbeat.
//!
//! The Lease carries the heartbeat in an annotation: the last time at which the leader had polled every
//! secret that was due.

use std::fmt;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1 as coordination;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::client::KubeError;

/// Name of the Lease, in the namespace of the provider's pods.
pub const LEASE_NAME: &str = "dew-provider";
/// Annotation with the time of the leader's heartbeat.
pub const HEARTBEAT_ANNOTATION: &str = "dew-provider.io/confirmed";

/// The Lease as last observed.
#[derive(Clone, Debug, Default)]
pub struct ObservedLease {
    /// Whether the first list is complete.
    pub listed: bool,
    /// The Lease, if it exists.
    pub lease: Option<coordination::Lease>,
    /// When it was observed to change, by the clock of this process.
    pub changed: Option<Instant>,
}

/// A watch of the Lease. Clones share it.
#[derive(Clone)]
pub struct LeaseWatch {
    api: Api<coordination::Lease>,
    observed: watch::Sender<ObservedLease>,
    heartbeats: watch::Sender<Option<Instant>>,
}

impl LeaseWatch {
    /// A watch of the Lease in `namespace`, which starts with [`LeaseWatch::run`].
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            observed: watch::Sender::default(),
            heartbeats: watch::Sender::default(),
        }
    }

    /// The API for writing the Lease.
    pub fn api(&self) -> &Api<coordination::Lease> {
        &self.api
    }

    /// The Lease as observed.
    pub fn observed(&self) -> watch::Receiver<ObservedLease> {
        self.observed.subscribe()
    }

    /// When the leader's last heartbeat arrived, by the clock of this process: timestamps of other
    /// machines are not compared with it.
    pub fn heartbeats(&self) -> watch::Receiver<Option<Instant>> {
        self.heartbeats.subscribe()
    }

    /// Watches the Lease while it is polled.
    pub async fn run(self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={LEASE_NAME}"));
        let mut last_heartbeat = None;
        let mut found = false;
        watcher(self.api.clone(), config)
            .default_backoff()
            .inspect_err(|error| {
                let error = KubeError::of_watch("leases", "the Lease", error);
                warn!(%error, "watch of the Lease failed; retrying");
            })
            .for_each(|event| {
                match event {
                    Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                        found = true;
                        let heartbeat = lease.annotations().get(HEARTBEAT_ANNOTATION).cloned();
                        // The heartbeat in the first list may be old.
                        if heartbeat.is_some()
                            && heartbeat != last_heartbeat
                            && self.observed.borrow().listed
                        {
                            self.heartbeats.send_replace(Some(Instant::now()));
                        }
                        last_heartbeat = heartbeat;
                        self.observe(Some(lease));
                    }
                    Ok(watcher::Event::Delete(_)) => self.observe(None),
                    Ok(watcher::Event::Init) => found = false,
                    Ok(watcher::Event::InitDone) => {
                        if !found {
                            self.observe(None);
                        }
                        self.observed.send_modify(|observed| observed.listed = true);
                    }
                    Err(_) => {}
                }
                std::future::ready(())
            })
            .await;
    }

    fn observe(&self, lease: Option<coordination::Lease>) {
        self.observed.send_modify(|observed| {
            let version = |lease: &Option<coordination::Lease>| {
                lease
                    .as_ref()
                    .and_then(|lease| lease.metadata.resource_version.clone())
            };
            if observed.changed.is_none() || version(&observed.lease) != version(&lease) {
                observed.changed = Some(Instant::now());
            }
            observed.lease = lease;
        });
    }
}

/// The identity that holds a Lease; empty if it was released.
pub fn holder(lease: &coordination::Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseWatch")
    }
}
