//! Counts the pods that mounted each SecretProviderClass, from the driver's
//! SecretProviderClassPodStatuses.
//!
//! A large cluster has hundreds of thousands of these, so only three numbers of each are kept.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, CustomResource, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use super::client::KubeError;
use crate::util::json::null_as_default;

/// Label with the name of the node. Source: driver v1.6.0, `apis/v1/types.go`.
const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";
/// Page size of lists.
const PAGE_SIZE: u32 = 500;

/// Names the driver's resource, whose objects have no `spec`; they are read as [`PodStatus`].
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "secrets-store.csi.x-k8s.io",
    version = "v1",
    kind = "SecretProviderClassPodStatus",
    plural = "secretproviderclasspodstatuses",
    namespaced
)]
pub struct NoSpec {}

/// The driver's record of a mounted volume.
#[derive(Resource, Clone, Debug, Default, Deserialize, Serialize)]
#[resource(inherit = SecretProviderClassPodStatus)]
pub struct PodStatus {
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// What is mounted.
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: MountedClass,
}

/// The field that is read of the status.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountedClass {
    /// Name of the class, in the same namespace.
    #[serde(default, deserialize_with = "null_as_default")]
    pub secret_provider_class_name: String,
}

/// The number of pods and nodes that mounted a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassMounts {
    /// Pods that mounted it.
    pub pods: u32,
    /// Nodes on which these pods run.
    pub nodes: u32,
}

#[derive(Default)]
struct Counts {
    /// Class and node of each PodStatus, by the hash of its name.
    places: HashMap<u64, (u32, u32)>,
    classes: Interned<(String, String)>,
    nodes: Interned<String>,
    /// Number of pods by class and node.
    pods: HashMap<(u32, u32), u32>,
}

/// Maps names to numbers. Entries are never removed, because classes and nodes are few.
struct Interned<T>(HashMap<T, u32>);

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: std::hash::Hash + Eq> Interned<T> {
    fn number(&mut self, name: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(name).or_insert(next)
    }
}

impl Counts {
    fn remove(&mut self, id: u64) {
        if let Some(place) = self.places.remove(&id)
            && let Some(count) = self.pods.get_mut(&place)
        {
            *count -= 1;
            if *count == 0 {
                self.pods.remove(&place);
            }
        }
    }

    fn put(&mut self, hasher: &RandomState, status: &PodStatus) {
        let id = id(hasher, status);
        self.remove(id);
        let namespace = status.namespace().unwrap_or_default();
        let class = (namespace, status.status.secret_provider_class_name.clone());
        let node = status.labels().get(NODE_LABEL).cloned();
        let place = (
            self.classes.number(class),
            self.nodes.number(node.unwrap_or_default()),
        );
        self.places.insert(id, place);
        *self.pods.entry(place).or_default() += 1;
    }
}

fn id(hasher: &RandomState, status: &PodStatus) -> u64 {
    hasher.hash_one((&status.metadata.namespace, &status.metadata.name))
}

/// The counts, kept up to date by a watch. Clones share them.
#[derive(Clone)]
pub struct MountCounts {
    counts: Arc<Mutex<Counts>>,
    changes: watch::Receiver<u64>,
    ready: watch::Receiver<bool>,
}

impl MountCounts {
    /// Starts the watch, which runs while the returned future is polled.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (changed, changes) = watch::channel(0);
        let (is_ready, ready) = watch::channel(false);
        let watched = Self {
            counts: Arc::clone(&counts),
            changes,
            ready,
        };
        let hasher = RandomState::new();
        let api: Api<PodStatus> = Api::all(client);
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let mut fresh = Counts::default();
        let task = watcher(api, config)
            .default_backoff()
            .inspect_err(|error| {
                let resource = "secretproviderclasspodstatuses";
                let error = KubeError::of_watch(resource, "SecretProviderClassPodStatuses", error);
                warn!(%error, "watch of SecretProviderClassPodStatuses failed; retrying");
            })
            .for_each(move |event| {
                let mut known = counts.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Err(_) => {}
                    Ok(watcher::Event::Init) => fresh = Counts::default(),
                    Ok(watcher::Event::InitApply(status)) => fresh.put(&hasher, &status),
                    Ok(watcher::Event::InitDone) => {
                        *known = std::mem::take(&mut fresh);
                        is_ready.send_replace(true);
                    }
                    Ok(watcher::Event::Apply(status)) => known.put(&hasher, &status),
                    Ok(watcher::Event::Delete(status)) => known.remove(id(&hasher, &status)),
                }
                drop(known);
                changed.send_modify(|count| *count += 1);
                std::future::ready(())
            });
        (watched, task)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The only error is the end of the watch, which ends the leader too.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// Changes with every event of the watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The counts, by namespace and name of the class.
    pub fn by_class(&self) -> HashMap<(String, String), ClassMounts> {
        let counts = self.lock();
        let mut by_number: HashMap<u32, ClassMounts> = HashMap::new();
        for ((class, _), pods) in &counts.pods {
            let users = by_number.entry(*class).or_default();
            users.pods += pods;
            users.nodes += 1;
        }
        let classes = counts.classes.0.iter();
        classes
            .filter_map(|(name, number)| Some((name.clone(), *by_number.get(number)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MountCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MountCounts")
    }
}
