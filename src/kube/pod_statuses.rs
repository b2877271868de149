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
use serde_json::value::RawValue;
use tokio::sync::watch;
use tracing::warn;

use super::client::KubeError;
use super::trimmed::{ObjectWriter, Shape, begin, pick, trimmed};
use crate::util::json::null_as_default;

/// Label with the name of the node. Source: driver v1.6.0, `apis/v1/types.go`.
const NODE_LABEL: &str = "internal.secrets-store.csi.k8s.io/node-name";
/// Page size of lists.
const PAGE_SIZE: u32 = 500;
/// Longest name of a class, as JSON in bytes. Kubernetes allows 253 characters.
const MAX_NAME: usize = 300;

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

/// Maps names to numbers, as long as they are used.
struct Interned<T> {
    numbers: HashMap<Arc<T>, u32>,
    /// The name of each number and how often it is used.
    names: Vec<Option<(Arc<T>, u32)>>,
    /// Numbers without a name.
    free: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            names: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T: std::hash::Hash + Eq> Interned<T> {
    /// The number of a name, which is used once more.
    fn acquire(&mut self, name: T) -> u32 {
        if let Some(&number) = self.numbers.get(&name) {
            if let Some(Some((_, uses))) = self.names.get_mut(number as usize) {
                *uses += 1;
            }
            return number;
        }
        let name = Arc::new(name);
        let entry = Some((Arc::clone(&name), 1));
        let number = match self.free.pop() {
            Some(number) => {
                self.names[number as usize] = entry;
                number
            }
            None => {
                self.names.push(entry);
                self.names.len() as u32 - 1
            }
        };
        self.numbers.insert(name, number);
        number
    }

    /// Undoes one [`Interned::acquire`].
    fn release(&mut self, number: u32) {
        let Some(entry) = self.names.get_mut(number as usize) else {
            return;
        };
        if let Some((name, uses)) = entry {
            *uses -= 1;
            if *uses == 0 {
                self.numbers.remove(name);
                *entry = None;
                self.free.push(number);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&T, u32)> {
        self.numbers.iter().map(|(name, number)| (&**name, *number))
    }
}

impl Counts {
    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        self.classes.release(place.0);
        self.nodes.release(place.1);
        if let Some(count) = self.pods.get_mut(&place) {
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
            self.classes.acquire(class),
            self.nodes.acquire(node.unwrap_or_default()),
        );
        self.places.insert(id, place);
        *self.pods.entry(place).or_default() += 1;
    }
}

/// Keeps of a PodStatus what is counted.
fn trim(json: &str) -> String {
    let [version, kind, metadata, status] =
        pick(json, ["apiVersion", "kind", "metadata", "status"]);
    let [class] = pick(
        status.map_or("", RawValue::get),
        ["secretProviderClassName"],
    );
    let class = class.filter(|class| class.get().len() <= MAX_NAME);
    let status = ObjectWriter::default().raw("secretProviderClassName", class);
    begin([version, kind], metadata, Some(NODE_LABEL), None)
        .json("status", &status.end())
        .end()
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
        let api: Api<PodStatus> = Api::all(trimmed(&client, Shape::Objects, Arc::new(trim)));
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
        let classes = counts.classes.iter();
        classes
            .filter_map(|(name, number)| Some((name.clone(), *by_number.get(&number)?)))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_forgotten_with_their_last_use() {
        let (mut counts, hasher) = (Counts::default(), RandomState::new());
        let status = |name: usize, class: usize| -> PodStatus {
            let json = json!({
                "metadata": {"namespace": "a", "name": name.to_string(), "labels": {NODE_LABEL: "n", "x": "y"}},
                "status": {"secretProviderClassName": class.to_string(), "objects": [{"id": "x"}]},
            });
            let trimmed = trim(&json.to_string());
            assert!(
                !trimmed.contains("objects") && !trimmed.contains("\"x\""),
                "{trimmed}"
            );
            serde_json::from_str(&trimmed).unwrap()
        };
        for round in 0..1_000 {
            for name in 0..3 {
                counts.put(&hasher, &status(name, round));
            }
            assert_eq!(counts.classes.numbers.len(), 1);
            assert_eq!(*counts.pods.values().next().unwrap(), 3);
        }
        assert!(counts.classes.names.len() <= 3);
        for name in 0..3 {
            counts.remove(id(&hasher, &status(name, 0)));
        }
        assert!(counts.classes.numbers.is_empty() && counts.nodes.numbers.is_empty());
        assert!(counts.pods.is_empty() && counts.places.is_empty());
    }
}
