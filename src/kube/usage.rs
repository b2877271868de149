//! How many pods have mounted each SecretProviderClass, by what the driver records of them.
//!
//! A large cluster has hundreds of thousands of such records, so a record is kept as three numbers.

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

/// Label by which the driver tells nodes apart. Source: driver v1.6.0, `apis/v1/types.go`.
const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";
/// Records of one page of a list.
const PAGE: u32 = 500;

/// Names the driver's record; its object has no `spec`, so it is read as a [`Record`].
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
pub struct Record {
    /// Its name, and the label of the node.
    pub metadata: ObjectMeta,
    /// What is mounted.
    #[serde(default)]
    pub status: MountedClass,
}

/// What is read of that status.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountedClass {
    /// Name of the class, in the record's namespace.
    #[serde(default)]
    pub secret_provider_class_name: String,
}

/// By how many a class is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Pods.
    pub pods: u32,
    /// Nodes on which they are.
    pub nodes: u32,
}

#[derive(Default)]
struct Counted {
    /// Class and node of a record, by the hash of its name.
    records: HashMap<u64, (u32, u32)>,
    classes: Interned<(String, String)>,
    nodes: Interned<String>,
    /// Records by class and node.
    pods: HashMap<(u32, u32), u32>,
}

/// Numbers for names; never given back, since classes and nodes are few.
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

impl Counted {
    fn remove(&mut self, record: u64) {
        if let Some(place) = self.records.remove(&record)
            && let Some(count) = self.pods.get_mut(&place)
        {
            *count -= 1;
            if *count == 0 {
                self.pods.remove(&place);
            }
        }
    }

    fn put(&mut self, hasher: &RandomState, record: &Record) {
        let id = id(hasher, record);
        self.remove(id);
        let namespace = record.namespace().unwrap_or_default();
        let class = (namespace, record.status.secret_provider_class_name.clone());
        let node = record.labels().get(NODE_LABEL).cloned();
        let place = (
            self.classes.number(class),
            self.nodes.number(node.unwrap_or_default()),
        );
        self.records.insert(id, place);
        *self.pods.entry(place).or_default() += 1;
    }
}

fn id(hasher: &RandomState, record: &Record) -> u64 {
    hasher.hash_one((&record.metadata.namespace, &record.metadata.name))
}

/// The counts, watched. Clones share them.
#[derive(Clone)]
pub struct Usage {
    counted: Arc<Mutex<Counted>>,
    changes: watch::Receiver<u64>,
    ready: watch::Receiver<bool>,
}

impl Usage {
    /// Starts the watch; it lives as long as the future is polled.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let counted = Arc::new(Mutex::new(Counted::default()));
        let (changed, changes) = watch::channel(0);
        let (is_ready, ready) = watch::channel(false);
        let usage = Self {
            counted: Arc::clone(&counted),
            changes,
            ready,
        };
        let hasher = RandomState::new();
        let api: Api<Record> = Api::all(client);
        let config = watcher::Config::default().page_size(PAGE);
        let mut fresh = Counted::default();
        let task = watcher(api, config)
            .default_backoff()
            .inspect_err(
                |error| warn!(%error, "watch of SecretProviderClassPodStatuses failed; it goes on"),
            )
            .for_each(move |event| {
                let mut known = counted.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Err(_) => {}
                    Ok(watcher::Event::Init) => fresh = Counted::default(),
                    Ok(watcher::Event::InitApply(record)) => fresh.put(&hasher, &record),
                    Ok(watcher::Event::InitDone) => {
                        *known = std::mem::take(&mut fresh);
                        is_ready.send_replace(true);
                    }
                    Ok(watcher::Event::Apply(record)) => known.put(&hasher, &record),
                    Ok(watcher::Event::Delete(record)) => known.remove(id(&hasher, &record)),
                }
                drop(known);
                changed.send_modify(|count| *count += 1);
                std::future::ready(())
            });
        (usage, task)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // An error is the end of the watch, and so of the leader.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// Moves with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Who has mounted what: by namespace and name of the class.
    pub fn by_class(&self) -> HashMap<(String, String), Users> {
        let counted = self.lock();
        let mut by_number: HashMap<u32, Users> = HashMap::new();
        for ((class, _), pods) in &counted.pods {
            let users = by_number.entry(*class).or_default();
            users.pods += pods;
            users.nodes += 1;
        }
        let classes = counted.classes.0.iter();
        classes
            .filter_map(|(name, number)| Some((name.clone(), *by_number.get(number)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Usage")
    }
}
