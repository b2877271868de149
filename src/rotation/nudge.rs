//! Nudges: a volume that lacks something is filled through the driver now, instead of when kubelet
//! looks after it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::Parts;
use super::driver::Driver;
use crate::kube::Pods;
use crate::kube::events::Weight;
use crate::provider::ROTATION_FAILED;
use crate::provider::error::Reason;
use crate::provider::parameters::Parameters;
use crate::provider::request::Pod;
use crate::provider::volumes::VolumeId;

/// Calls of the driver under way at once.
const AT_ONCE: usize = 8;
/// A volume that still lacks the same after this long is left to kubelet.
const GIVE_UP: Duration = Duration::from_secs(5 * 60);
/// Waits between calls for one volume: its class may reach the driver a moment after us, and a
/// volume that changed within the last second is skipped.
const WAITS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(1_100),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// For this long after a call the end of the pod is watched for: the call may have come after
/// kubelet had taken the volume down.
const WATCH_FOR_THE_END: Duration = Duration::from_secs(10 * 60);

/// A pod that was deleted by force may run on for a while.
const FORCED: Duration = Duration::from_secs(60);

/// How a nudge ended, for the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    Repeated,
    Failed,
    Gone,
    Cleaned,
    GaveUp,
}

impl Outcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Repeated => "repeated",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Cleaned => "cleaned",
            Self::GaveUp => "gave_up",
        }
    }
}

/// The nudges of a node.
pub(super) struct Nudger {
    driver: Driver,
    pods: Pods,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// One at a time for each volume: the driver has no lock of its own.
    running: HashSet<VolumeId>,
    /// What a volume lacked when it was given up.
    given_up: HashMap<VolumeId, u64>,
    /// Volumes that were called for, by their pods' UIDs, and when.
    called: HashMap<String, HashMap<VolumeId, Instant>>,
    /// Whether it was told that there is no driver.
    missed: bool,
}

impl Nudger {
    pub(super) fn new(driver: Driver, pods: Pods) -> Self {
        Self {
            driver,
            pods,
            places: Semaphore::new(AT_ONCE),
            state: Mutex::default(),
        }
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Settings that a volume's class has now, under what its pod puts over them; `None` where the
    /// class is gone or another provider's.
    fn settings(&self, parts: &Parts, id: &VolumeId, pod: &Pod) -> Option<u64> {
        let class = parts.classes.seen(&pod.namespace, &id.class)?;
        let provider = class.spec.provider.as_ref()?;
        if !parts.provider_names.contains(provider) {
            return None;
        }
        let volume = self.pods.volume(&id.pod_uid, &id.target_path)?;
        let parameters = class.spec.parameters.as_ref()?;
        let parameters = Parameters::of_class(parameters, &volume.attributes);
        Some(parts.provider.volumes().settings(&parameters))
    }

    fn lacks(&self, parts: &Parts, id: &VolumeId, pod: &Pod) -> Option<u64> {
        let settings = self.settings(parts, id, pod);
        let volumes = parts.provider.volumes();
        volumes.lacks(id, settings, parts.provider.store())
    }

    /// Nudges all volumes that lack something; returns whether there are any that may yet get it.
    pub(super) fn nudge_all(self: &Arc<Self>, parts: &Arc<Parts>) -> bool {
        let is_there = self.driver.is_there();
        if !is_there && !std::mem::replace(&mut self.state().missed, true) {
            info!(
                "the driver's socket is not there (--driver-socket): kubelet delivers until it is"
            );
        }
        if !self.pods.is_ready() || !is_there {
            return false;
        }
        let mut lagging = false;
        for (id, pod) in parts.provider.volumes().all() {
            let lack = self.lacks(parts, &id, &pod);
            let mut state = self.state();
            let Some(lack) = lack else {
                state.given_up.remove(&id);
                continue;
            };
            if self.pods.volume(&id.pod_uid, &id.target_path).is_none()
                || state.given_up.get(&id) == Some(&lack)
            {
                continue;
            }
            lagging = true;
            if state.running.insert(id.clone()) {
                let (nudger, of) = (Arc::clone(self), Arc::clone(parts));
                parts.spawn(async move {
                    nudger.nudge(&of, &id, &pod).await;
                    nudger.state().running.remove(&id);
                    of.look_again.notify_one();
                });
            }
        }
        lagging
    }

    /// Calls until the volume lacks nothing.
    async fn nudge(&self, parts: &Parts, id: &VolumeId, pod: &Pod) {
        let end = Instant::now() + GIVE_UP;
        let mut waits = WAITS.iter();
        while let Some(lack) = self.lacks(parts, id, pod) {
            if Instant::now() >= end {
                self.give_up(parts, id, pod, lack);
                return;
            }
            let outcome = self.call(parts, id, pod).await;
            parts.metrics.nudged(outcome);
            match outcome {
                Outcome::Gone | Outcome::Cleaned => return,
                Outcome::Failed if self.is_final(parts, id, pod) => {
                    // Told by the Mount itself. The next edit, or kubelet, tries again.
                    self.state().given_up.insert(id.clone(), lack);
                    return;
                }
                Outcome::Delivered if self.lacks(parts, id, pod).is_none() => return,
                _ => {
                    let wait = waits.next().unwrap_or(&WAITS[WAITS.len() - 1]);
                    sleep(*wait).await;
                }
            }
        }
    }

    fn is_final(&self, parts: &Parts, id: &VolumeId, pod: &Pod) -> bool {
        let settings = self.settings(parts, id, pod);
        let failure = parts.provider.volumes().failure(id, settings);
        failure.is_some_and(|reason| reason != Reason::Internal)
    }

    fn give_up(&self, parts: &Parts, id: &VolumeId, pod: &Pod, lack: u64) {
        parts.metrics.nudged(Outcome::GaveUp);
        let text = format!(
            "the driver did not take a change into volume {} within {} s; it is left to kubelet. Is the \
             driver's rotation on, and its rotationPollInterval short?",
            id.target_path,
            GIVE_UP.as_secs()
        );
        warn!(pod = pod.name, namespace = pod.namespace, text, "gave up");
        if let Some(events) = parts.provider.events() {
            events.of_pod(pod.reference(), Weight::Warning, ROTATION_FAILED, text);
        }
        self.state().given_up.insert(id.clone(), lack);
    }

    async fn call(&self, parts: &Parts, id: &VolumeId, pod: &Pod) -> Outcome {
        let Ok(_place) = self.places.acquire().await else {
            return Outcome::Gone;
        };
        let volumes = parts.provider.volumes();
        // Looked at last of all: a call for a pod that is gone would mount its volume again.
        let (Some(csi), Some(volume)) = (
            self.pods.volume(&id.pod_uid, &id.target_path),
            volumes.get(id),
        ) else {
            return Outcome::Gone;
        };
        if csi.has_secret && volume.secret.is_none() {
            // kubelet's next call brings the keys.
            return Outcome::Gone;
        }
        let asked = volumes.asked(id);
        let now = Instant::now();
        let uid = id.pod_uid.clone();
        self.state()
            .called
            .entry(uid)
            .or_default()
            .insert(id.clone(), now);
        let result = self.driver.publish(id, &volume, &csi).await;
        debug!(pod = pod.name, ?result, "nudged");
        if self.has_ended(&id.pod_uid) {
            self.clean(parts, &id.pod_uid).await;
            return Outcome::Cleaned;
        }
        let settings = self.settings(parts, id, pod);
        match result {
            Err(error) => {
                debug!(%error, "the driver refused a nudge");
                Outcome::Failed
            }
            Ok(()) if volumes.asked(id) == asked => Outcome::Repeated,
            Ok(()) if volumes.failure(id, settings).is_some() => Outcome::Failed,
            Ok(()) => Outcome::Delivered,
        }
    }

    /// Gone, or ending with no container left that could use its files: kubelet has taken its
    /// volumes down, or is about to.
    fn has_ended(&self, uid: &str) -> bool {
        match self.pods.get(uid) {
            Some(pod) => !pod.stays && !pod.runs,
            None => self.pods.vanished(uid).is_none_or(|for_| for_ >= FORCED),
        }
    }

    /// Cleans up after pods that ended a while after a call.
    pub(super) async fn clean_ended(&self, parts: &Parts) {
        let now = Instant::now();
        let ended: Vec<String> = {
            let mut state = self.state();
            for called in state.called.values_mut() {
                called.retain(|_, at| now.duration_since(*at) < WATCH_FOR_THE_END);
            }
            state.called.retain(|_, called| !called.is_empty());
            let uids = state.called.keys();
            uids.filter(|uid| self.has_ended(uid)).cloned().collect()
        };
        for uid in ended {
            self.clean(parts, &uid).await;
        }
    }

    async fn clean(&self, parts: &Parts, uid: &str) {
        let Some(called) = self.state().called.remove(uid) else {
            return;
        };
        for id in called.into_keys() {
            match self.driver.unpublish(&id.target_path).await {
                Ok(()) => info!(target = id.target_path, "cleaned up after a pod that ended"),
                Err(error) => {
                    warn!(target = id.target_path, %error, "could not clean up; tried again");
                    let uid = id.pod_uid.clone();
                    let mut state = self.state();
                    state
                        .called
                        .entry(uid)
                        .or_default()
                        .insert(id, Instant::now());
                    continue;
                }
            }
            parts.provider.volumes().forget(&id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
