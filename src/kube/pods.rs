//! The pods of this node that have volumes of the driver.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{self as core, ContainerStatus};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::client::KubeError;
use super::events::EventTarget;

/// How long a pod that vanished is remembered.
const VANISHED_REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);
/// Name of the Secrets Store CSI Driver.
const DRIVER: &str = "secrets-store.csi.k8s.io";

/// The pod that a volume belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Name of its ServiceAccount.
    pub service_account: String,
}

impl PodRef {
    /// The pod as the target of an Event.
    pub fn event_target(&self) -> EventTarget<'_> {
        EventTarget {
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
        }
    }
}

/// A volume of the driver, as in the pod's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiVolume {
    /// `volumeAttributes`.
    pub attributes: BTreeMap<String, String>,
    /// Whether it has a `nodePublishSecretRef`.
    pub has_secret: bool,
}

/// The state of a pod that matters for its volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePod {
    /// Whether it has not ended and is not being deleted.
    pub stays: bool,
    /// Whether any of its containers runs, so that its files are in use.
    pub runs: bool,
    /// The driver's volumes, by name.
    pub volumes: BTreeMap<String, CsiVolume>,
}

#[derive(Default)]
struct PodStates {
    by_uid: HashMap<String, LivePod>,
    vanished: HashMap<String, Instant>,
}

impl PodStates {
    fn remove(&mut self, uid: &str) {
        let now = Instant::now();
        self.vanished
            .retain(|_, at| now.duration_since(*at) < VANISHED_REMEMBERED_FOR);
        if self.by_uid.remove(uid).is_some_and(|pod| pod.runs) {
            self.vanished.insert(uid.to_owned(), now);
        }
    }

    /// Replaces all pods by those of a list; the others have vanished.
    fn replace(&mut self, fresh: HashMap<String, LivePod>) {
        let gone: Vec<String> = (self.by_uid.keys())
            .filter(|uid| !fresh.contains_key(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.remove(&uid);
        }
        self.by_uid = fresh;
    }
}

/// The pods of one node. Clones share the watch.
#[derive(Clone)]
pub struct Pods {
    known: Arc<Mutex<PodStates>>,
    ready: watch::Receiver<bool>,
    changes: watch::Receiver<u64>,
}

impl Pods {
    /// Starts the watch of a node's pods, which runs while the returned future is polled.
    pub fn watch(client: Client, node: &str) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let known = Arc::new(Mutex::new(PodStates::default()));
        let (is_ready, ready) = watch::channel(false);
        let (changed, changes) = watch::channel(0);
        let pods = Self {
            known: Arc::clone(&known),
            ready,
            changes,
        };
        let api: Api<core::Pod> = Api::all(client);
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let mut fresh = HashMap::new();
        let task = watcher(api, config)
            .default_backoff()
            .inspect_err(|error| {
                let error = KubeError::of_watch("pods", "this node's pods", error);
                warn!(%error, "watch of this node's pods failed; retrying");
            })
            .for_each(move |event| {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Err(_) => {}
                    Ok(watcher::Event::Init) => fresh.clear(),
                    Ok(watcher::Event::InitApply(pod)) => take(&mut fresh, &pod),
                    Ok(watcher::Event::InitDone) => {
                        known.replace(std::mem::take(&mut fresh));
                        is_ready.send_replace(true);
                    }
                    Ok(watcher::Event::Apply(pod)) => take(&mut known.by_uid, &pod),
                    Ok(watcher::Event::Delete(pod)) => {
                        known.remove(&pod.uid().unwrap_or_default());
                    }
                }
                drop(known);
                changed.send_modify(|count| *count += 1);
                std::future::ready(())
            });
        (pods, task)
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Changes with every event of the watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A pod; `None` if it does not exist or has no volume of the driver.
    pub fn get(&self, uid: &str) -> Option<LivePod> {
        self.lock().by_uid.get(uid).cloned()
    }

    /// Whether a pod has not ended and is not being deleted; `None` if it does not exist or has no volume of the
    /// driver.
    pub fn stays(&self, uid: &str) -> Option<bool> {
        self.lock().by_uid.get(uid).map(|pod| pod.stays)
    }

    /// How long ago a pod vanished whose containers were last observed running, as after a forced deletion.
    /// `None` for any other pod.
    pub fn vanished(&self, uid: &str) -> Option<Duration> {
        let known = self.lock();
        known.vanished.get(uid).map(Instant::elapsed)
    }

    /// The volume that kubelet mounted at `target_path`, if its pod runs and is not being deleted. The
    /// volume of a pod that does not run yet may be about to be mounted, or to be unmounted.
    pub fn volume(&self, uid: &str, target_path: &str) -> Option<CsiVolume> {
        let pods = self.lock();
        let pod = pods.by_uid.get(uid).filter(|pod| pod.stays && pod.runs)?;
        pod.volumes.get(volume_name(target_path)?).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, PodStates> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// kubelet's path is `…/pods/UID/volumes/kubernetes.io~csi/NAME/mount`.
fn volume_name(target_path: &str) -> Option<&str> {
    Path::new(target_path).parent()?.file_name()?.to_str()
}

fn take(pods: &mut HashMap<String, LivePod>, pod: &core::Pod) {
    let uid = pod.uid().unwrap_or_default();
    let volumes: BTreeMap<_, _> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| Some((volume.name.clone(), volume.csi.as_ref()?)))
        .filter(|(_, csi)| csi.driver == DRIVER)
        .map(|(name, csi)| {
            let volume = CsiVolume {
                attributes: csi.volume_attributes.clone().unwrap_or_default(),
                has_secret: csi.node_publish_secret_ref.is_some(),
            };
            (name, volume)
        })
        .collect();
    if volumes.is_empty() {
        return;
    }
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let ended = matches!(phase, "Succeeded" | "Failed");
    let containers = |of: fn(&core::PodStatus) -> &Option<Vec<ContainerStatus>>| {
        status.into_iter().flat_map(move |s| of(s).iter().flatten())
    };
    let runs = containers(|s| &s.container_statuses)
        .chain(containers(|s| &s.init_container_statuses))
        .chain(containers(|s| &s.ephemeral_container_statuses))
        .any(|c| {
            c.state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        });
    let live = LivePod {
        stays: pod.metadata.deletion_timestamp.is_none() && !ended,
        runs,
        volumes,
    };
    pods.insert(uid, live);
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pods")
    }
}
