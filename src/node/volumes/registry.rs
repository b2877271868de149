//! The volumes mounted on this node, with the state of their updates.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::changes::changes;
use super::record::{MountRecord, SettingsHash, VolumeId};
use crate::cache::{CacheKey, SecretCache};
use crate::class::parameters::{ObjectsHash, Parameters};
use crate::kube::PodRef;

/// Volumes without a request for this long belong to pods that no longer exist: kubelet requests each
/// volume every 60 to 90 s, but a driver with a long rotation interval passes on as little as one request a
/// day.
const FORGET_AFTER: Duration = Duration::from_secs(25 * 60 * 60);
/// A persistent failure is reported again after this time.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// Identifies how a volume is outdated: equal as long as it is outdated in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift(u64);

/// A failed Mount of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountFailure {
    /// The category of the failure.
    pub reason: &'static str,
    /// Whether a later Mount may succeed without an edit.
    pub is_transient: bool,
}

/// What a Mount changed in its volume.
#[derive(Debug, Default)]
pub struct MountChange {
    /// Whether the volume was not mounted before.
    pub is_new: bool,
    /// The secrets whose version changed, as `"name" v1 → v2`.
    pub changes: Vec<String>,
}

struct MountedVolume {
    record: Arc<MountRecord>,
    /// When the driver last called Mount for it.
    requested: Instant,
    failing: Option<FailingVolume>,
    /// Whether a nudge is in flight: one at a time, because the driver does not lock volumes.
    nudging: bool,
    /// How the volume was outdated when the node left it to kubelet.
    abandoned: Option<Drift>,
    /// Whether its pod may no longer mount its secrets.
    revoked: bool,
    /// Whether an Event says so.
    revocation_reported: bool,
    /// What the watch of pods says of its pod.
    presence: Presence,
}

/// Whether the pod of a volume exists.
#[derive(Clone, Copy, PartialEq)]
enum Presence {
    /// It was never in the watch of pods: there is none, it is late, or the pod is static.
    Unknown,
    Exists,
    /// It is being deleted, has ended, or was deleted.
    Ends,
}

/// A mounted volume that cannot be updated.
struct FailingVolume {
    since: Instant,
    reported: Instant,
    failure: MountFailure,
    settings: SettingsHash,
}

/// Namespace and name of a class.
type ClassName = (String, String);

#[derive(Default)]
struct RegistryState {
    volumes: HashMap<VolumeId, MountedVolume>,
    /// The cache keys that the pods of a class share.
    shared_keys: HashMap<ClassName, Arc<[CacheKey]>>,
    /// Changes whenever the cache keys in use may have changed.
    generation: u64,
    /// Volumes that were nudged recently, by the UID of their pod: a nudge may reach the driver after kubelet
    /// has unmounted the volume.
    nudged: HashMap<String, HashMap<VolumeId, Instant>>,
}

/// The volumes mounted on this node.
#[derive(Default)]
pub struct Volumes {
    state: Mutex<RegistryState>,
    hasher: RandomState,
}

impl Volumes {
    /// The hash of these parameters.
    pub fn settings(&self, parameters: &Parameters) -> SettingsHash {
        let objects = parameters.objects.as_deref().map(ObjectsHash::of);
        self.settings_of(objects, &parameters.protected)
    }

    /// The hash of parameters of which the list of objects is known by its own hash.
    pub fn settings_of(
        &self,
        objects: Option<ObjectsHash>,
        protected: &[Option<String>],
    ) -> SettingsHash {
        SettingsHash(self.hasher.hash_one((objects, protected)))
    }

    // Mounts.

    /// Records that the driver called Mount for a volume.
    pub fn note_request(&self, id: &VolumeId) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.requested = Instant::now();
        }
    }

    /// Records a successful Mount.
    pub fn record_mount(&self, id: VolumeId, mut record: MountRecord) -> MountChange {
        let mut state = self.state();
        let class = (record.pod.namespace.clone(), id.class.clone());
        let Some(volume) = state.volumes.get(&id) else {
            record.keys = state.share(class, record.keys);
            let volume = MountedVolume {
                record: Arc::new(record),
                requested: Instant::now(),
                failing: None,
                nudging: false,
                abandoned: None,
                revoked: false,
                revocation_reported: false,
                presence: Presence::Unknown,
            };
            state.volumes.insert(id, volume);
            state.generation += 1;
            return MountChange {
                is_new: true,
                changes: Vec::new(),
            };
        };
        let old = Arc::clone(&volume.record);
        let was_revoked = volume.revoked;
        record.keys = if *old.keys == *record.keys {
            Arc::clone(&old.keys)
        } else {
            state.share(class, record.keys)
        };
        let changes = changes(&old, &record);
        let same_use = Arc::ptr_eq(&old.keys, &record.keys)
            && old.interval == record.interval
            && old.caller.credentials.identity() == record.caller.credentials.identity();
        if !same_use || was_revoked {
            state.generation += 1;
        }
        if let Some(volume) = state.volumes.get_mut(&id) {
            volume.record = Arc::new(record);
            volume.requested = Instant::now();
            volume.failing = None;
            volume.revoked = false;
        }
        MountChange {
            is_new: false,
            changes,
        }
    }

    /// Records a failed Mount. The driver hides the failures of a volume that is mounted already: for such a
    /// volume, returns its pod and how long its Mounts have been failing, unless a recent call returned that.
    pub fn record_failure(
        &self,
        id: &VolumeId,
        settings: SettingsHash,
        failure: MountFailure,
    ) -> Option<(PodRef, Duration)> {
        let now = Instant::now();
        let mut state = self.state();
        let volume = state.volumes.get_mut(id)?;
        volume.requested = now;
        let failing = volume.failing.get_or_insert(FailingVolume {
            since: now,
            reported: now.checked_sub(REPORT_AGAIN_AFTER).unwrap_or(now),
            failure,
            settings,
        });
        let is_new = failing.since == now
            || (failing.failure.reason, failing.settings) != (failure.reason, settings)
            || now.duration_since(failing.reported) >= REPORT_AGAIN_AFTER;
        (failing.failure, failing.settings) = (failure, settings);
        is_new.then(|| {
            failing.reported = now;
            (volume.record.pod.clone(), now.duration_since(failing.since))
        })
    }

    // Revocation.

    /// Records that the pod of a volume may no longer mount its secrets: the volume keeps its files and follows
    /// nothing. Returns whether that is new.
    pub fn revoke(&self, id: &VolumeId) -> bool {
        let mut state = self.state();
        let Some(volume) = state.volumes.get_mut(id) else {
            return false;
        };
        let is_new = !std::mem::replace(&mut volume.revoked, true);
        if is_new {
            volume.revocation_reported = false;
            state.generation += 1;
        }
        is_new
    }

    /// Records that the pod of a volume may mount its secrets: a volume that was revoked follows them again.
    /// Returns whether it was.
    pub fn restore(&self, id: &VolumeId) -> bool {
        let mut state = self.state();
        let Some(volume) = state.volumes.get_mut(id).filter(|volume| volume.revoked) else {
            return false;
        };
        volume.revoked = false;
        volume.failing = None;
        volume.abandoned = None;
        state.generation += 1;
        true
    }

    /// Whether a volume is revoked.
    pub fn is_revoked(&self, id: &VolumeId) -> bool {
        let state = self.state();
        state.volumes.get(id).is_some_and(|volume| volume.revoked)
    }

    /// Records that an Event says that a volume is revoked.
    pub fn note_revocation_reported(&self, id: &VolumeId) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.revocation_reported = true;
        }
    }

    /// Whether an Event says that a volume is revoked.
    pub fn is_revocation_reported(&self, id: &VolumeId) -> bool {
        let state = self.state();
        let volume = state.volumes.get(id);
        volume.is_some_and(|volume| volume.revocation_reported)
    }

    /// Records which pods exist: `stays` is whether a pod stays, or `None` if it is not in the watch of pods.
    pub fn note_pods(&self, stays: impl Fn(&str) -> Option<bool>) {
        for (id, volume) in &mut self.state().volumes {
            volume.presence = match (stays(&id.pod_uid), volume.presence) {
                (Some(true), _) => Presence::Exists,
                (Some(false), _) | (None, Presence::Exists | Presence::Ends) => Presence::Ends,
                (None, Presence::Unknown) => Presence::Unknown,
            };
        }
    }

    /// All volumes except those whose pod is known to end, whose objects may be deleted before it.
    pub fn of_staying_pods(&self) -> Vec<(VolumeId, Arc<MountRecord>)> {
        let state = self.state();
        (state.volumes.iter())
            .filter(|(_, volume)| volume.presence != Presence::Ends)
            .map(|(id, volume)| (id.clone(), Arc::clone(&volume.record)))
            .collect()
    }

    /// The number of volumes that are revoked.
    pub fn revoked(&self) -> usize {
        let state = self.state();
        let is_counted = |v: &&MountedVolume| v.revoked && v.presence != Presence::Ends;
        state.volumes.values().filter(is_counted).count()
    }

    // Queries.

    /// The last successful Mount of a volume.
    pub fn get(&self, id: &VolumeId) -> Option<Arc<MountRecord>> {
        let state = self.state();
        state.volumes.get(id).map(|v| Arc::clone(&v.record))
    }

    /// All volumes that follow their secrets, which revoked ones do not.
    pub fn following(&self) -> Vec<(VolumeId, Arc<MountRecord>)> {
        let state = self.state();
        (state.volumes.iter())
            .filter(|(_, volume)| !volume.revoked)
            .map(|(id, volume)| (id.clone(), Arc::clone(&volume.record)))
            .collect()
    }

    /// Changes whenever [`Volumes::in_use`] may have changed.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// One record for all volumes with the same keys and interval that follow their secrets.
    pub fn in_use(&self) -> Vec<Arc<MountRecord>> {
        let mut found: HashMap<(*const CacheKey, Duration), Arc<MountRecord>> = HashMap::new();
        for volume in self.state().volumes.values().filter(|v| !v.revoked) {
            let record = &volume.record;
            found
                .entry((record.keys.as_ptr(), record.interval))
                .or_insert_with(|| Arc::clone(record));
        }
        found.into_values().collect()
    }

    /// How a volume is outdated, if it is. `settings` are the current ones of its class, if they are known.
    pub fn drift(
        &self,
        id: &VolumeId,
        settings: Option<SettingsHash>,
        cache: &SecretCache,
    ) -> Option<Drift> {
        let record = self.get(id)?;
        let cached: Vec<_> = record.keys.iter().map(|key| cache.stamp(key)).collect();
        let is_current = settings.is_none_or(|wanted| wanted == record.settings)
            && (record.delivered.iter().zip(&cached))
                .all(|(delivered, cached)| delivered.is_current(*cached));
        (!is_current).then(|| Drift(self.hasher.hash_one((settings, cached))))
    }

    /// How the last Mount with these settings failed, if it did.
    pub fn failure(&self, id: &VolumeId, settings: Option<SettingsHash>) -> Option<MountFailure> {
        let state = self.state();
        let failing = state.volumes.get(id)?.failing.as_ref()?;
        let same_settings = settings.is_none_or(|wanted| wanted == failing.settings);
        same_settings.then_some(failing.failure)
    }

    /// When the driver last called Mount for a volume.
    pub fn last_request(&self, id: &VolumeId) -> Option<Instant> {
        let state = self.state();
        state.volumes.get(id).map(|volume| volume.requested)
    }

    // Nudges.

    /// Marks a nudge of a volume as in flight until [`Volumes::end_nudge`]; returns whether it may start.
    pub fn begin_nudge(&self, id: &VolumeId) -> bool {
        let mut state = self.state();
        let volume = state.volumes.get_mut(id);
        volume.is_some_and(|volume| !std::mem::replace(&mut volume.nudging, true))
    }

    /// Records that the nudge has ended.
    pub fn end_nudge(&self, id: &VolumeId) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.nudging = false;
        }
    }

    /// Leaves a volume to kubelet as long as it has this drift.
    pub fn abandon(&self, id: &VolumeId, drift: Drift) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.abandoned = Some(drift);
        }
    }

    /// Whether a volume with this drift was left to kubelet.
    pub fn is_abandoned(&self, id: &VolumeId, drift: Drift) -> bool {
        let state = self.state();
        let volume = state.volumes.get(id);
        volume.is_some_and(|volume| volume.abandoned == Some(drift))
    }

    /// Records that the volume is up to date, so that the next drift is not left to kubelet.
    pub fn mark_up_to_date(&self, id: &VolumeId) {
        if let Some(volume) = self.state().volumes.get_mut(id) {
            volume.abandoned = None;
        }
    }

    /// Records that a call of the driver for a volume is about to start.
    pub fn note_nudge(&self, id: &VolumeId) {
        self.state()
            .nudged
            .entry(id.pod_uid.clone())
            .or_default()
            .insert(id.clone(), Instant::now());
    }

    /// UIDs of pods whose volumes were nudged within `age`.
    pub fn nudged_pods(&self, age: Duration) -> Vec<String> {
        let now = Instant::now();
        let nudged = &mut self.state().nudged;
        for volumes in nudged.values_mut() {
            volumes.retain(|_, at| now.duration_since(*at) < age);
        }
        nudged.retain(|_, volumes| !volumes.is_empty());
        nudged.keys().cloned().collect()
    }

    /// Removes and returns the nudged volumes of a pod.
    pub fn take_nudged(&self, pod_uid: &str) -> Vec<VolumeId> {
        let nudged = self.state().nudged.remove(pod_uid);
        nudged.unwrap_or_default().into_keys().collect()
    }

    // Removal.

    /// Forgets a volume whose pod no longer exists.
    pub fn forget(&self, id: &VolumeId) {
        let mut state = self.state();
        state.volumes.remove(id);
        state.generation += 1;
    }

    /// Forgets volumes without a request for `age`, except those whose pod `exists`.
    pub fn prune(&self, age: Duration, exists: impl Fn(&str) -> bool) {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.volumes.len();
        state
            .volumes
            .retain(|id, volume| now.duration_since(volume.requested) < age || exists(&id.pod_uid));
        if state.volumes.len() < before {
            state.generation += 1;
        }
    }

    /// Forgets volumes of pods that no longer exist. To be called periodically.
    pub fn sweep(&self) {
        self.prune(FORGET_AFTER, |_| false);
        let mut state = self.state();
        state.generation += 1;
        state
            .shared_keys
            .retain(|_, keys| Arc::strong_count(keys) > 1);
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// One copy of the keys for all pods of a class.
    fn share(&mut self, class: ClassName, keys: Arc<[CacheKey]>) -> Arc<[CacheKey]> {
        let shared = self
            .shared_keys
            .entry(class)
            .or_insert_with(|| Arc::clone(&keys));
        if **shared != *keys {
            *shared = keys;
        }
        Arc::clone(shared)
    }
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Volumes")
    }
}
