//! Nudges: makes the driver update an outdated volume now, instead of when kubelet remounts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::context::Context;
use super::csi_client::CsiClient;
use crate::class::parameters::{ObjectsHash, Parameters};
use crate::kube::{EventReason, PodRef, Pods};
use crate::node::volumes::{Drift, SettingsHash, VolumeId};
use crate::telemetry::metrics::NudgeOutcome;
use crate::util::shares::Shares;

/// Maximum number of calls to the driver in flight.
const MAX_CONCURRENT: u32 = 8;
/// The same for the volumes of one namespace, whose Mounts may all wait for a cloud that does not respond.
const MAX_CONCURRENT_PER_NAMESPACE: u32 = 4;
/// How long the node tries to update a volume before it leaves the volume to kubelet.
const ABANDON_AFTER: Duration = Duration::from_secs(5 * 60);
/// The waits between calls for one volume: the driver may observe an edited class a moment later, and it
/// skips a volume that changed within the last second.
const BACKOFF: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(1_100),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// How long after a nudge the node watches whether the pod ends: the nudge may have reached the driver after
/// kubelet had unmounted the volume.
const CLEANUP_WINDOW: Duration = Duration::from_secs(10 * 60);
/// How often the node looks for such pods if the watch of pods reports no change.
const CLEANUP_PERIOD: Duration = Duration::from_secs(10);
/// How long the containers of a forcibly deleted pod may keep running.
const FORCED_DELETION_GRACE: Duration = Duration::from_secs(60);

/// Nudges the volumes of this node.
pub(super) struct Nudger {
    driver: CsiClient,
    pods: Pods,
    slots: Shares,
    /// Whether the log already says that the driver's socket does not exist.
    missing_logged: AtomicBool,
}

impl Nudger {
    pub(super) fn new(driver: CsiClient, pods: Pods) -> Self {
        Self {
            driver,
            pods,
            slots: Shares::new(MAX_CONCURRENT, MAX_CONCURRENT_PER_NAMESPACE),
            missing_logged: AtomicBool::new(false),
        }
    }

    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }

    /// The settings that the class of a volume has now, with the overrides of its pod; `None` if the class
    /// does not exist or belongs to another provider.
    fn settings(&self, context: &Context, id: &VolumeId, pod: &PodRef) -> Option<SettingsHash> {
        let class = context.classes.observed(&pod.namespace, &id.class)?;
        let provider = class.spec.provider.as_ref()?;
        if !context.provider_names.contains(provider) {
            return None;
        }
        let volume = self.pods.volume(&id.pod_uid, &id.target_path)?;
        let protected = Parameters::protected_of(class.spec.parameters.as_ref()?);
        let objects = volume.attributes.get("objects");
        let objects = objects.map(|objects| ObjectsHash::of(objects));
        let objects = objects.or(class.spec.objects_hash);
        Some(context.volumes.settings_of(objects, &protected))
    }

    fn drift(&self, context: &Context, id: &VolumeId, pod: &PodRef) -> Option<Drift> {
        let settings = self.settings(context, id, pod);
        context.volumes.drift(id, settings, &context.cache)
    }

    /// Nudges all outdated volumes in the background. Returns whether any of them may still be updated.
    pub(super) fn nudge_outdated(self: &Arc<Self>, context: &Arc<Context>) -> bool {
        let is_available = self.driver.is_available();
        if !is_available && !self.missing_logged.swap(true, Ordering::Relaxed) {
            info!(
                "the driver's socket does not exist (--driver-socket): kubelet delivers new versions until \
                 it does"
            );
        }
        if !self.pods.is_ready() || !is_available {
            return false;
        }
        let mut lagging = false;
        for (id, record) in context.volumes.following() {
            let pod = &record.pod;
            let Some(drift) = self.drift(context, &id, pod) else {
                context.volumes.mark_up_to_date(&id);
                continue;
            };
            if self.pods.volume(&id.pod_uid, &id.target_path).is_none()
                || context.volumes.is_abandoned(&id, drift)
            {
                continue;
            }
            lagging = true;
            if context.volumes.begin_nudge(&id) {
                let (nudger, pod) = (Arc::clone(self), pod.clone());
                let shared = Arc::clone(context);
                context.spawn(async move {
                    nudger.nudge(&shared, &id, &pod).await;
                    shared.volumes.end_nudge(&id);
                    shared.wake.notify_one();
                });
            }
        }
        lagging
    }

    /// Calls the driver until the volume is up to date.
    async fn nudge(&self, context: &Context, id: &VolumeId, pod: &PodRef) {
        let end = Instant::now() + ABANDON_AFTER;
        let mut backoff = BACKOFF.iter();
        while let Some(drift) = self.drift(context, id, pod) {
            if Instant::now() >= end {
                self.abandon(context, id, pod, drift);
                return;
            }
            let outcome = self.call(context, id, pod).await;
            context.metrics.nudged(outcome);
            match outcome {
                NudgeOutcome::Gone | NudgeOutcome::Cleaned => return,
                NudgeOutcome::Failed if self.is_final(context, id, pod) => {
                    // The Mount has reported the failure. An edit, or kubelet, leads to the next attempt.
                    context.volumes.abandon(id, drift);
                    return;
                }
                NudgeOutcome::Delivered if self.drift(context, id, pod).is_none() => return,
                _ => {
                    let wait = backoff.next().unwrap_or(&BACKOFF[BACKOFF.len() - 1]);
                    sleep(*wait).await;
                }
            }
        }
    }

    /// Whether the last Mount failed for a reason that only an edit can remove.
    fn is_final(&self, context: &Context, id: &VolumeId, pod: &PodRef) -> bool {
        let settings = self.settings(context, id, pod);
        let failure = context.volumes.failure(id, settings);
        failure.is_some_and(|failure| !failure.is_transient)
    }

    fn abandon(&self, context: &Context, id: &VolumeId, pod: &PodRef, drift: Drift) {
        context.metrics.nudged(NudgeOutcome::Abandoned);
        let note = format!(
            "the CSI driver did not update volume {} within {} s; kubelet will retry. Check that the \
             driver's rotation is enabled and its rotationPollInterval is short",
            id.target_path,
            ABANDON_AFTER.as_secs()
        );
        warn!(
            pod = pod.name,
            namespace = pod.namespace,
            note,
            "gave up on a volume"
        );
        let reason = EventReason::SecretRotationFailed;
        context.events.about_pod(pod.event_target(), reason, note);
        context.volumes.abandon(id, drift);
    }

    /// Calls the driver once.
    async fn call(&self, context: &Context, id: &VolumeId, pod: &PodRef) -> NudgeOutcome {
        let _slot = self.slots.acquire(&pod.namespace, 1).await;
        let volumes = &context.volumes;
        // Checked last: a call for a pod that no longer exists would mount its volume again.
        let (Some(csi), Some(record)) = (
            self.pods.volume(&id.pod_uid, &id.target_path),
            volumes.get(id),
        ) else {
            return NudgeOutcome::Gone;
        };
        if csi.has_secret && record.publish_secret.is_none() {
            // kubelet's next call brings the pod's keys.
            return NudgeOutcome::Gone;
        }
        let requested = volumes.last_request(id);
        volumes.note_nudge(id);
        let result = self.driver.publish(id, &record, &csi).await;
        debug!(pod = pod.name, ?result, "nudged");
        if self.has_ended(&id.pod_uid) {
            self.clean_up(context, &id.pod_uid).await;
            return NudgeOutcome::Cleaned;
        }
        let settings = self.settings(context, id, pod);
        match result {
            Err(error) => {
                debug!(%error, "the driver rejected a nudge");
                NudgeOutcome::Failed
            }
            Ok(()) if volumes.last_request(id) == requested => NudgeOutcome::Repeated,
            Ok(()) if volumes.failure(id, settings).is_some() => NudgeOutcome::Failed,
            Ok(()) => NudgeOutcome::Delivered,
        }
    }

    /// Whether a pod no longer exists, or is ending without a running container: kubelet has unmounted its
    /// volumes, or is about to.
    fn has_ended(&self, uid: &str) -> bool {
        match self.pods.get(uid) {
            Some(pod) => !pod.stays && !pod.runs,
            None => self
                .pods
                .vanished(uid)
                .is_none_or(|age| age >= FORCED_DELETION_GRACE),
        }
    }

    /// Cleans up after pods that ended soon after a nudge. Runs until it is dropped.
    pub(super) async fn run_cleanup(self: Arc<Self>, context: Arc<Context>) {
        let mut changes = self.pods.changes();
        loop {
            let changed = timeout(CLEANUP_PERIOD, changes.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            for uid in context.volumes.nudged_pods(CLEANUP_WINDOW) {
                if self.has_ended(&uid) {
                    self.clean_up(&context, &uid).await;
                }
            }
            context.wake.notify_one();
        }
    }

    /// Unmounts the recently nudged volumes of a pod that ended.
    async fn clean_up(&self, context: &Context, uid: &str) {
        for id in context.volumes.take_nudged(uid) {
            match self.driver.unpublish(&id.target_path).await {
                Ok(()) => {
                    info!(target = id.target_path, "cleaned up after a pod that ended");
                    context.volumes.forget(&id);
                }
                Err(error) => {
                    warn!(target = id.target_path, %error, "could not clean up; retrying");
                    context.volumes.note_nudge(&id);
                }
            }
        }
    }
}
