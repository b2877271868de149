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
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::client::KubeError;
use super::events::EventTarget;
use super::trimmed::{ObjectWriter, Shape, begin, for_each, pick, text, trimmed};
use crate::util::namespace_sizes::NamespaceSizes;

/// How long a pod that vanished is remembered.
const VANISHED_REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);
/// Name of the Secrets Store CSI Driver.
const DRIVER: &str = "secrets-store.csi.k8s.io";
/// Most volumes of the driver that are kept of a pod, and their largest `volumeAttributes`, as JSON in bytes. Further
/// and larger ones are left to kubelet.
const MAX_VOLUMES: usize = 64;
const MAX_ATTRIBUTES: usize = 32 * 1024;
/// Most bytes of attributes that are kept of all pods. If there are more, the namespace with the most loses its own.
const MAX_KEPT: usize = 4 * 1024 * 1024;
/// Longest name of a volume, as JSON in bytes. Kubernetes allows 63 characters.
const MAX_NAME: usize = 80;

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

/// A pod and its namespace.
struct KnownPod {
    namespace: String,
    live: LivePod,
}

impl KnownPod {
    fn size(&self) -> usize {
        let volumes = self.live.volumes.values();
        let attributes = volumes.flat_map(|volume| &volume.attributes);
        attributes.map(|(key, value)| key.len() + value.len()).sum()
    }
}

#[derive(Default)]
struct KnownPods {
    by_uid: HashMap<String, KnownPod>,
    /// Bytes of attributes.
    sizes: NamespaceSizes,
}

impl KnownPods {
    fn put(&mut self, uid: String, mut pod: KnownPod) {
        self.remove(&uid);
        self.sizes.add(&pod.namespace, pod.size());
        while self.sizes.total() > MAX_KEPT {
            let Some(largest) = self.sizes.largest().map(str::to_owned) else {
                break;
            };
            let evicted = if largest == pod.namespace {
                &mut pod
            } else {
                let mut pods = self.by_uid.values_mut();
                let of_largest = |pod: &&mut KnownPod| pod.namespace == largest && pod.size() > 0;
                let Some(evicted) = pods.find(of_largest) else {
                    break;
                };
                evicted
            };
            self.sizes.subtract(&largest, evicted.size());
            evicted.live.volumes.clear();
        }
        self.by_uid.insert(uid, pod);
    }

    fn remove(&mut self, uid: &str) -> Option<LivePod> {
        let pod = self.by_uid.remove(uid)?;
        self.sizes.subtract(&pod.namespace, pod.size());
        Some(pod.live)
    }
}

#[derive(Default)]
struct PodStates {
    known: KnownPods,
    vanished: HashMap<String, Instant>,
}

impl PodStates {
    fn remove(&mut self, uid: &str) {
        let now = Instant::now();
        self.vanished
            .retain(|_, at| now.duration_since(*at) < VANISHED_REMEMBERED_FOR);
        if self.known.remove(uid).is_some_and(|pod| pod.runs) {
            self.vanished.insert(uid.to_owned(), now);
        }
    }

    /// Replaces all pods by those of a list; the others have vanished.
    fn replace(&mut self, fresh: KnownPods) {
        let gone: Vec<String> = (self.known.by_uid.keys())
            .filter(|uid| !fresh.by_uid.contains_key(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.remove(&uid);
        }
        self.known = fresh;
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
        let api: Api<core::Pod> = Api::all(trimmed(&client, Shape::Objects, Arc::new(trim)));
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let mut fresh = KnownPods::default();
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
                    Ok(watcher::Event::Init) => fresh = KnownPods::default(),
                    Ok(watcher::Event::InitApply(pod)) => take(&mut fresh, &pod),
                    Ok(watcher::Event::InitDone) => {
                        known.replace(std::mem::take(&mut fresh));
                        is_ready.send_replace(true);
                    }
                    Ok(watcher::Event::Apply(pod)) => take(&mut known.known, &pod),
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
        self.lock()
            .known
            .by_uid
            .get(uid)
            .map(|pod| pod.live.clone())
    }

    /// Whether a pod has not ended and is not being deleted; `None` if it does not exist or has no volume of the
    /// driver.
    pub fn stays(&self, uid: &str) -> Option<bool> {
        self.lock().known.by_uid.get(uid).map(|pod| pod.live.stays)
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
        let pod = &pods.known.by_uid.get(uid)?.live;
        if !pod.stays || !pod.runs {
            return None;
        }
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

/// Keeps of a pod what [`LivePod`] is made of: a pod may have a megabyte of attributes.
fn trim(json: &str) -> String {
    let [version, kind, metadata, spec, status] =
        pick(json, ["apiVersion", "kind", "metadata", "spec", "status"]);
    let [volumes] = pick(spec.map_or("", RawValue::get), ["volumes"]);
    let mut kept = Vec::new();
    for_each(volumes.map_or("", RawValue::get), |volume| {
        if kept.len() < MAX_VOLUMES {
            kept.extend(trim_volume(volume.get()));
        }
    });
    let spec = ObjectWriter::default()
        .json("containers", "[]")
        .json("volumes", &format!("[{}]", kept.join(",")));
    let status = status.map_or("", RawValue::get);
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let mut runs = false;
    for list in pick(status, lists).into_iter().flatten() {
        for_each(list.get(), |container| {
            let [state] = pick(container.get(), ["state"]);
            let [running] = pick(state.map_or("", RawValue::get), ["running"]);
            runs |= running.is_some();
        });
    }
    let [phase] = pick(status, ["phase"]);
    let mut status = ObjectWriter::default().raw("phase", phase);
    if runs {
        let running = r#"[{"name":"","image":"","imageID":"","ready":true,"restartCount":0,"state":{"running":{}}}]"#;
        status = status.json("containerStatuses", running);
    }
    begin([version, kind], metadata, None, None)
        .json("spec", &spec.end())
        .json("status", &status.end())
        .end()
}

/// The volume, if it is one of the driver.
fn trim_volume(json: &str) -> Option<String> {
    let [name, csi] = pick(json, ["name", "csi"]);
    let name = name.filter(|name| name.get().len() <= MAX_NAME);
    let [driver, secret, attributes] = pick(
        csi?.get(),
        ["driver", "nodePublishSecretRef", "volumeAttributes"],
    );
    if text(driver, MAX_NAME).as_deref() != Some(DRIVER) {
        return None;
    }
    let mut kept = ObjectWriter::default().raw("driver", driver);
    if secret.is_some() {
        kept = kept.json("nodePublishSecretRef", "{}");
    }
    if attributes.is_some_and(|attributes| attributes.get().len() > MAX_ATTRIBUTES) {
        return None;
    }
    kept = kept.raw("volumeAttributes", attributes);
    let volume = ObjectWriter::default().raw("name", name);
    Some(volume.json("csi", &kept.end()).end())
}

fn take(pods: &mut KnownPods, pod: &core::Pod) {
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
    let namespace = pod.namespace().unwrap_or_default();
    pods.put(uid, KnownPod { namespace, live });
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pods")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, uid: &str, attributes: usize) -> core::Pod {
        let csi = json!({
            "driver": DRIVER, "nodePublishSecretRef": {"name": "keys"},
            "volumeAttributes": {"objects": "x".repeat(attributes)},
        });
        let running =
            json!([{"name": "c", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]);
        let json = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": "p", "uid": uid, "annotations": {"a": "y".repeat(9)}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "env": []}], "volumes": [
                {"name": "v", "csi": csi}, {"name": "w", "csi": {"driver": "other"}}, {"name": "e", "emptyDir": {}},
            ]},
            "status": {"phase": "Running", "initContainerStatuses": [], "containerStatuses": running},
        });
        let trimmed = trim(&json.to_string());
        assert!(
            !trimmed.contains("yyy") && !trimmed.contains("other"),
            "{trimmed}"
        );
        serde_json::from_str(&trimmed).unwrap()
    }

    #[test]
    fn a_pod_is_trimmed_to_the_drivers_volumes() {
        let mut known = KnownPods::default();
        take(&mut known, &pod("a", "1", 10));
        let live = &known.by_uid["1"].live;
        assert!(live.runs && live.stays);
        assert!(live.volumes["v"].has_secret);
        assert_eq!(live.volumes["v"].attributes["objects"], "xxxxxxxxxx");
        take(&mut known, &pod("a", "2", MAX_ATTRIBUTES));
        assert!(!known.by_uid.contains_key("2"));
    }

    #[test]
    fn the_namespace_with_the_most_attributes_loses_its_own() {
        let mut known = KnownPods::default();
        for index in 0..400 {
            take(&mut known, &pod("greedy", &format!("g{index}"), 20_000));
            take(
                &mut known,
                &pod("honest", &format!("h{}", index % 50), 1_000),
            );
        }
        assert!(known.sizes.total() <= MAX_KEPT);
        let left = |of: &str| {
            let pods = known.by_uid.values().filter(|pod| pod.namespace == of);
            pods.filter(|pod| !pod.live.volumes.is_empty()).count()
        };
        assert_eq!(left("honest"), 50);
        assert!((100..400).contains(&left("greedy")), "{}", left("greedy"));
    }
}
