//! Which volumes this process has filled already, and with what.
//!
//! The driver does not tell a first mount from a repeated one (since v1.6.0
//! `current_object_version` is always empty), and how old an answer may be differs between them.
//! After a restart every volume counts as new once, which only asks the cloud a little earlier.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::request::Request;
use crate::store::{Key, Selector};

/// A `latest` or stage of a volume that is new may be this old: who changes a secret and restarts
/// a pod expects the new value.
pub const NEW_LATEST: Duration = Duration::from_secs(10);
/// A `vN` of a volume that is new was confirmed within this time: a right taken away, or a secret
/// deleted, stops new pods.
pub const NEW_VERSION: Duration = Duration::from_secs(60 * 60);
/// Volumes not asked for this long belong to pods that are gone: kubelet asks every 60–90 s, but a
/// driver with a long rotation interval passes on as little as one question a day.
const GONE_AFTER: Duration = Duration::from_secs(25 * 60 * 60);

/// One volume of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeId {
    pod_uid: String,
    class: String,
    target_path: String,
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

struct Filled {
    /// Hashes of the keys of its objects.
    keys: HashSet<u64>,
    asked: Instant,
}

/// The volumes.
pub struct Volumes {
    filled: Mutex<HashMap<VolumeId, Filled>>,
    hasher: RandomState,
    interval: Duration,
}

impl Volumes {
    /// None yet; `interval` is `rotation_poll_interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            filled: Mutex::default(),
            hasher: RandomState::new(),
            interval,
        }
    }

    /// How old the answer for each of `keys` may be in this volume; `None` is any age. An object
    /// that was added to a volume later is new in it.
    pub fn max_ages(&self, volume: &VolumeId, keys: &[Key]) -> Vec<Option<Duration>> {
        let filled = self.lock();
        let held = filled.get(volume);
        keys.iter()
            .map(|key| {
                let mounted = held.is_some_and(|f| f.keys.contains(&self.hasher.hash_one(key)));
                match (&key.selector, mounted) {
                    (Selector::Version(_), true) => None,
                    (Selector::Version(_), false) => Some(NEW_VERSION),
                    (Selector::Latest | Selector::Stage(_), true) => Some(self.interval),
                    (Selector::Latest | Selector::Stage(_), false) => Some(self.new_latest()),
                }
            })
            .collect()
    }

    /// How old what decides about the volume as a whole may be, which is asked for now.
    pub fn max_age(&self, volume: &VolumeId) -> Duration {
        match self.lock().get_mut(volume) {
            Some(filled) => {
                filled.asked = Instant::now();
                self.interval
            }
            None => self.new_latest(),
        }
    }

    fn new_latest(&self) -> Duration {
        NEW_LATEST.min(self.interval)
    }

    /// Notes that a volume was given these; returns whether it was new.
    pub fn filled(&self, volume: VolumeId, keys: &[Key]) -> bool {
        let keys = keys.iter().map(|key| self.hasher.hash_one(key)).collect();
        let filled = Filled {
            keys,
            asked: Instant::now(),
        };
        self.lock().insert(volume, filled).is_none()
    }

    /// Forgets volumes of pods that are gone. To be called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.lock()
            .retain(|_, f| now.duration_since(f.asked) < GONE_AFTER);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Filled>> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Volumes")
    }
}
