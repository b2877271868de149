//! The loop of delivery: compares each secret in use with the leader's revision and starts refreshes;
//! compares each volume with the cache and starts nudges.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::context::Context;
use super::nudge::Nudger;
use super::refresh::{self, KeyUse};
use crate::cache::{CacheKey, SecretStatus, SyncStatus};
use crate::cloud::{Turn, VersionSelector};
use crate::kube::EventReason;
use crate::policy::{Place, Policy};

/// How often the loop runs if nothing wakes it.
const RESYNC_PERIOD: Duration = Duration::from_secs(2);
/// The node forgets a volume whose pod is not in the API server this long after its last request: kubelet
/// requests the volumes of existing pods every 60 to 90 s, also those of static pods, whose UID in the API
/// differs from the one in requests.
const FORGET_AFTER: Duration = Duration::from_secs(5 * 60);
/// The same if pods cannot be watched; longer, because the driver may pass on fewer requests.
const FORGET_UNWATCHED_AFTER: Duration = Duration::from_secs(60 * 60);

pub(super) struct Reconciler {
    context: Arc<Context>,
    nudger: Option<Arc<Nudger>>,
    /// The keys in use that may move.
    keys: HashMap<CacheKey, KeyUse>,
    /// The generation of the volumes from which `keys` was collected.
    generation: Option<u64>,
    policy: watch::Receiver<Arc<Policy>>,
    /// Since when a new version or an edited class has not reached all volumes.
    lagging_since: Option<Instant>,
}

impl Reconciler {
    /// Without a nudger, volumes are left to kubelet.
    pub(super) fn new(context: Arc<Context>, nudger: Option<Arc<Nudger>>) -> Self {
        Self {
            policy: context.policy.changes(),
            context,
            nudger,
            keys: HashMap::new(),
            generation: None,
            lagging_since: None,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut classes = self.context.classes.changes();
        loop {
            self.reconcile();
            tokio::select! {
                () = self.context.wake.notified() => {}
                _ = classes.changed() => {}
                () = sleep(RESYNC_PERIOD) => {}
            }
        }
    }

    fn reconcile(&mut self) {
        let now = Instant::now();
        self.prune_volumes();
        self.update_keys();
        let mut oldest = Duration::ZERO;
        let (mut failing, mut fetching) = (0, false);
        for (key, key_use) in &self.keys {
            let status = self.context.cache.status(key, key_use.interval);
            let age = status.confirmed.map(|at| now.duration_since(at));
            // Shifted to the default interval, so that one alert threshold fits all classes.
            let shifted = age.unwrap_or_default() + self.context.interval;
            oldest = oldest.max(shifted.saturating_sub(key_use.interval));
            fetching |= matches!(status.sync, SyncStatus::Outdated { .. });
            failing += i64::from(status.failure.is_some());
            refresh::start_if_due(&self.context, key, key_use, &status.sync, age);
            self.report(key, key_use, &status, now);
        }
        self.context.metrics.oldest.set(oldest.as_secs_f64());
        self.context.metrics.failing.set(failing);
        let lagging = self
            .nudger
            .as_ref()
            .is_some_and(|nudger| nudger.nudge_outdated(&self.context));
        if fetching || lagging {
            self.lagging_since.get_or_insert(now);
        } else if let Some(since) = self.lagging_since.take() {
            let took = now.duration_since(since).as_secs_f64();
            self.context.metrics.delivery.observe(took);
        }
    }

    fn prune_volumes(&self) {
        let volumes = &self.context.volumes;
        match &self.nudger {
            Some(nudger) if nudger.pods().is_ready() => {
                volumes.note_pods(|uid| nudger.pods().stays(uid));
                volumes.prune(FORGET_AFTER, |uid| nudger.pods().get(uid).is_some());
            }
            Some(_) => {}
            None => volumes.prune(FORGET_UNWATCHED_AFTER, |_| false),
        }
    }

    /// Collects the keys in use that may move and that the policy allows, each with the shortest interval.
    fn update_keys(&mut self) {
        let generation = self.context.volumes.generation();
        let policy_changed = self.policy.has_changed().unwrap_or(false);
        if self.generation == Some(generation) && !policy_changed {
            return;
        }
        let policy = Arc::clone(&self.policy.borrow_and_update());
        let mut keys: HashMap<CacheKey, KeyUse> = HashMap::new();
        for record in self.context.volumes.in_use() {
            let (namespace, caller) = (&record.pod.namespace, &record.caller);
            let place = Place::new(caller.region.as_str(), caller.project.as_deref());
            for key in record.keys.iter() {
                if matches!(key.selector, VersionSelector::Version(_))
                    || !policy.allows(namespace, place, &key.secret)
                {
                    continue;
                }
                if let Some(known) = keys.get_mut(key) {
                    known.interval = known.interval.min(record.interval);
                    known.turn.join(&record.caller.turn);
                    continue;
                }
                let turn = Turn::default();
                turn.join(&record.caller.turn);
                let key_use = KeyUse {
                    caller: Arc::clone(&record.caller),
                    turn,
                    interval: record.interval,
                };
                keys.insert(key.clone(), key_use);
            }
        }
        self.context
            .cache
            .retain_refreshes(|key| keys.contains_key(key));
        self.keys = keys;
        self.generation = Some(generation);
    }

    /// Reports a secret that could not be confirmed for one interval, once, to the pods that mounted it.
    fn report(&self, key: &CacheKey, key_use: &KeyUse, status: &SecretStatus, now: Instant) {
        let cache = &self.context.cache;
        let Some((since, cause)) = &status.failure else {
            cache.reset_report(key);
            return;
        };
        let lasted = now.duration_since(*since);
        if lasted < key_use.interval || !cache.report_failure(key) {
            return;
        }
        let (secret, seconds) = (&key.secret, lasted.as_secs());
        warn!(secret, seconds, cause, "secret could not be confirmed");
        for (_, record) in self.context.volumes.following() {
            if record.keys.contains(key) {
                let note = format!(
                    "{secret:?} could not be confirmed for {seconds} s; the volume keeps its files: {cause}"
                );
                let pod = record.pod.event_target();
                let reason = EventReason::SecretRotationFailed;
                self.context.events.about_pod(pod, reason, note);
            }
        }
    }
}
