//! Which volumes this process has filled already, and with what.
//!
//! The driver does not tell a first mount from a repeated one (since v1.6.0
//! `current_object_version` is always empty), and how old an answer may be differs between them.
//! After a restart every volume counts as new once, which only asks the cloud a little earlier.
//!
//! The same records tell rotation what is in use, and which volumes lag behind.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{MountError, Reason};
use super::fetch::Fetched;
use super::parameters::Parameters;
use super::request::{Pod, Request};
use super::resolve::Plan;
use super::secrets::PublishSecret;
use crate::cloud::Caller;
use crate::store::{Key, Selector, Store};

/// A `latest` or stage of a volume that is new may be this old: who changes a secret and restarts
/// a pod expects the new value.
pub const NEW_LATEST: Duration = Duration::from_secs(10);
/// A `vN` of a volume that is new was confirmed within this time: a right taken away, or a secret
/// deleted, stops new pods.
pub const NEW_VERSION: Duration = Duration::from_secs(60 * 60);
/// Volumes not asked for this long belong to pods that are gone: kubelet asks every 60–90 s, but a
/// driver with a long rotation interval passes on as little as one question a day.
const GONE_AFTER: Duration = Duration::from_secs(25 * 60 * 60);
/// A failure that lasts is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(60 * 60);

/// One volume of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeId {
    /// UID of the pod.
    pub pod_uid: String,
    /// SecretProviderClass, in the pod's namespace.
    pub class: String,
    /// kubelet's folder of the volume.
    pub target_path: String,
}

impl VolumeId {
    /// The volume that `request` is for.
    pub fn of(request: &Request) -> Self {
        Self {
            pod_uid: request.pod.uid.clone(),
            class: request.class.clone(),
            target_path: request.target_path.clone(),
        }
    }
}

/// What a volume has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Delivered {
    /// Number of the version, and when it was made.
    Version(u32, i64),
    /// Nothing: an optional object that did not exist.
    Nothing,
    /// That of another region, which is not compared.
    Elsewhere,
}

impl Delivered {
    fn of(item: &Fetched, plan: &Plan) -> Self {
        match &item.secret {
            Some(_) if !Arc::ptr_eq(&item.caller, &plan.caller) => Self::Elsewhere,
            Some(version) => Self::Version(version.number(), version.create_time),
            None => Self::Nothing,
        }
    }

    fn is(self, held: Option<(u32, i64)>) -> bool {
        match (self, held) {
            (Self::Version(number, created), Some(held)) => (number, created) == held,
            // What was dropped to save memory is not a change.
            (Self::Version(..), None) | (Self::Nothing, None) | (Self::Elsewhere, _) => true,
            (Self::Nothing, Some(_)) => false,
        }
    }
}

/// A volume that cannot be brought up to date.
#[derive(Clone, Debug)]
struct Failing {
    since: Instant,
    told: Instant,
    reason: Reason,
    settings: u64,
}

/// A volume that was filled.
#[derive(Clone)]
pub struct Volume {
    /// Its pod.
    pub pod: Pod,
    /// How old `latest` may be in it.
    pub interval: Duration,
    /// As whom its objects are asked for.
    pub caller: Arc<Caller>,
    /// Its objects.
    pub keys: Arc<[Key]>,
    /// Keys that the pod brings.
    pub secret: Option<Arc<PublishSecret>>,
    settings: u64,
    delivered: Arc<[Delivered]>,
    asked: Instant,
    failing: Option<Failing>,
}

/// What a Mount did to its volume.
#[derive(Debug, Default)]
pub struct Filled {
    /// Whether the volume was not known before.
    pub is_new: bool,
    /// What moved, as `"name" v1 → v2`.
    pub changes: Vec<String>,
}

type NamespacedName = (String, String);

/// The volumes.
pub struct Volumes {
    filled: Mutex<HashMap<VolumeId, Volume>>,
    /// The keys that pods of a class share, by namespace and name.
    shared: Mutex<HashMap<NamespacedName, Arc<[Key]>>>,
    /// Moves when what is in use may have changed.
    generation: AtomicU64,
    hasher: RandomState,
    interval: Duration,
}

impl Volumes {
    /// None yet; `interval` is `rotation_poll_interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            filled: Mutex::default(),
            shared: Mutex::default(),
            generation: AtomicU64::new(0),
            hasher: RandomState::new(),
            interval,
        }
    }

    /// How old the answer for each object of the plan may be in this volume; `None` is any age. An
    /// object that was added to a volume later is new in it.
    pub fn max_ages(&self, volume: &VolumeId, plan: &Plan, store: &Store) -> Vec<Option<Duration>> {
        let interval = self.interval_of(plan);
        let held = self.lock().get(volume).map(|v| Arc::clone(&v.keys));
        let all = held.as_ref().is_some_and(|held| **held == *plan.keys);
        let has = |key: &Key| all || held.as_ref().is_some_and(|held| held.contains(key));
        let age = |key: &Key| match (&key.selector, has(key)) {
            (Selector::Version(_), true) => None,
            (Selector::Version(_), false) => Some(NEW_VERSION),
            (Selector::Latest | Selector::Stage(_), false) => Some(NEW_LATEST.min(interval)),
            (Selector::Latest | Selector::Stage(_), true) => {
                (!store.is_looked_after(key, interval)).then_some(interval)
            }
        };
        plan.keys.iter().map(age).collect()
    }

    /// How old what decides about the volume as a whole may be, which is asked for now.
    pub fn max_age(&self, volume: &VolumeId) -> Duration {
        match self.lock().get_mut(volume) {
            Some(filled) => {
                filled.asked = Instant::now();
                filled.interval
            }
            None => NEW_LATEST.min(self.interval),
        }
    }

    fn interval_of(&self, plan: &Plan) -> Duration {
        plan.interval.unwrap_or(self.interval)
    }

    /// Notes that a volume was given these.
    pub fn filled(
        &self,
        id: VolumeId,
        settings: u64,
        request: &Request,
        plan: &Plan,
        fetched: &[Fetched],
    ) -> Filled {
        let delivered: Arc<[Delivered]> = fetched.iter().map(|f| Delivered::of(f, plan)).collect();
        let mut volume = Volume {
            pod: request.pod.clone(),
            interval: self.interval_of(plan),
            caller: Arc::clone(&plan.caller),
            keys: Arc::clone(&plan.keys),
            secret: request.secret.clone(),
            settings,
            delivered,
            asked: Instant::now(),
            failing: None,
        };
        let mut filled = self.lock();
        let Some(old) = filled.get(&id) else {
            volume.keys = self.share(&volume.pod.namespace, &id.class, volume.keys);
            filled.insert(id, volume);
            self.generation.fetch_add(1, Ordering::Relaxed);
            return Filled {
                is_new: true,
                changes: Vec::new(),
            };
        };
        volume.keys = if *old.keys == *volume.keys {
            Arc::clone(&old.keys)
        } else {
            self.share(&volume.pod.namespace, &id.class, volume.keys)
        };
        let changes = changes(old, &volume);
        let same = Arc::ptr_eq(&old.keys, &volume.keys) && old.interval == volume.interval;
        if !same || old.caller.credentials.identity() != volume.caller.credentials.identity() {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        filled.insert(id, volume);
        Filled {
            is_new: false,
            changes,
        }
    }

    /// Pods of a class have the same keys: one copy of them is kept.
    fn share(&self, namespace: &str, class: &str, keys: Arc<[Key]>) -> Arc<[Key]> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shared
            .entry((namespace.to_owned(), class.to_owned()))
            .or_insert_with(|| Arc::clone(&keys));
        if **entry != *keys {
            *entry = keys;
        }
        Arc::clone(entry)
    }

    /// Notes that a Mount failed. For a volume that is mounted, where the driver hides it, returns
    /// its pod and how long that has been so, unless it was told lately.
    pub fn failed(
        &self,
        id: &VolumeId,
        settings: u64,
        error: &MountError,
    ) -> Option<(Pod, Duration)> {
        let now = Instant::now();
        let mut filled = self.lock();
        let volume = filled.get_mut(id)?;
        volume.asked = now;
        let failing = volume.failing.get_or_insert(Failing {
            since: now,
            told: now.checked_sub(TELL_AGAIN).unwrap_or(now),
            reason: error.reason,
            settings,
        });
        let is_news = failing.since == now
            || (failing.reason, failing.settings) != (error.reason, settings)
            || now.duration_since(failing.told) >= TELL_AGAIN;
        (failing.reason, failing.settings) = (error.reason, settings);
        is_news.then(|| {
            failing.told = now;
            (volume.pod.clone(), now.duration_since(failing.since))
        })
    }

    /// Tells what a class says from what it said before. Only within this process.
    pub fn settings(&self, parameters: &Parameters) -> u64 {
        self.hasher
            .hash_one((&parameters.objects, &parameters.protected))
    }

    /// All volumes.
    pub fn all(&self) -> Vec<(VolumeId, Pod)> {
        let filled = self.lock();
        filled
            .iter()
            .map(|(id, volume)| (id.clone(), volume.pod.clone()))
            .collect()
    }

    /// A volume.
    pub fn get(&self, id: &VolumeId) -> Option<Volume> {
        self.lock().get(id).cloned()
    }

    /// Moves when [`Volumes::in_use`] may say something else than before.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// What is in use, once for all volumes that share it.
    pub fn in_use(&self) -> Vec<Volume> {
        let mut found: HashMap<(*const Key, Duration), Volume> = HashMap::new();
        for volume in self.lock().values() {
            let shared = (volume.keys.as_ptr(), volume.interval);
            found.entry(shared).or_insert_with(|| volume.clone());
        }
        found.into_values().collect()
    }

    /// What a volume lacks of what it should have: `None` where nothing, else a number that is the
    /// same as long as it lacks the same. `settings` are those of its class as it is now.
    pub fn lacks(&self, id: &VolumeId, settings: Option<u64>, store: &Store) -> Option<u64> {
        let filled = self.lock();
        let volume = filled.get(id)?;
        let held: Vec<_> = volume.keys.iter().map(|key| store.held(key)).collect();
        let current = settings.is_none_or(|wanted| wanted == volume.settings)
            && (volume.delivered.iter().zip(&held)).all(|(has, held)| has.is(*held));
        (!current).then(|| self.hasher.hash_one((settings, held)))
    }

    /// How the last Mount of these settings failed, if it did.
    pub fn failure(&self, id: &VolumeId, settings: Option<u64>) -> Option<Reason> {
        let filled = self.lock();
        let failing = filled.get(id)?.failing.as_ref()?;
        let same = settings.is_none_or(|wanted| wanted == failing.settings);
        same.then_some(failing.reason)
    }

    /// When the driver last asked for it.
    pub fn asked(&self, id: &VolumeId) -> Option<Instant> {
        self.lock().get(id).map(|volume| volume.asked)
    }

    /// Forgets a volume, whose pod is gone.
    pub fn forget(&self, id: &VolumeId) {
        self.lock().remove(id);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets volumes that nobody asked for within `age`, but for those of pods that are `there`.
    pub fn prune(&self, age: Duration, there: impl Fn(&str) -> bool) {
        let now = Instant::now();
        let mut filled = self.lock();
        let before = filled.len();
        filled.retain(|id, volume| now.duration_since(volume.asked) < age || there(&id.pod_uid));
        if filled.len() < before {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets volumes of pods that are gone. To be called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.lock()
            .retain(|_, f| now.duration_since(f.asked) < GONE_AFTER);
        self.generation.fetch_add(1, Ordering::Relaxed);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, keys| Arc::strong_count(keys) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Volume>> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What moved between two fillings of a volume. A secret stands in a class once.
fn changes(old: &Volume, new: &Volume) -> Vec<String> {
    if old.delivered == new.delivered && Arc::ptr_eq(&old.keys, &new.keys) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (key, has) in new.keys.iter().zip(new.delivered.iter()) {
        let Delivered::Version(number, created) = *has else {
            continue;
        };
        let before = old.keys.iter().position(|k| k.secret == key.secret);
        match before.map(|index| old.delivered[index]) {
            Some(Delivered::Version(n, at)) if (n, at) != (number, created) => {
                found.push(format!("{:?} v{n} → v{number}", key.secret));
            }
            None | Some(Delivered::Nothing) => found.push(format!("{:?} → v{number}", key.secret)),
            Some(Delivered::Version(..) | Delivered::Elsewhere) => {}
        }
    }
    found
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Volumes")
    }
}
