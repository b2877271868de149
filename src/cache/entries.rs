//! The cached versions, bounded in bytes.
//!
//! Each entry is charged to one of the namespaces that use it. Beyond the limit, the namespace that is charged the
//! most gives way, so that no namespace can evict what others need in an outage.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::key::CacheKey;
use crate::cloud::{Identity, SecretValue, Turn, version_number};
use crate::util::namespace_sizes::NamespaceSizes;

/// Estimated size of an entry in addition to its value, in bytes.
const ENTRY_OVERHEAD: usize = 512;
/// Maximum number of namespaces that are remembered as users of an entry.
const MAX_USERS: usize = 16;

/// A version of a secret with its value.
#[derive(Debug)]
pub struct CachedVersion {
    /// `v1`, `v2`, ….
    pub id: String,
    /// When it was created, in milliseconds since 1970.
    pub create_time: i64,
    /// The value.
    pub value: SecretValue,
}

impl CachedVersion {
    /// The number and the creation time.
    pub fn stamp(&self) -> VersionStamp {
        VersionStamp {
            number: version_number(&self.id),
            created: self.create_time,
        }
    }
}

/// Distinguishes a version from the others of its secret, and from those of an earlier secret of the same
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionStamp {
    /// The number in the ID; 0 for an ID that is not `v` and digits.
    pub number: u32,
    /// When it was created, in milliseconds since 1970.
    pub created: i64,
}

pub(super) struct CacheEntry {
    pub(super) version: Arc<CachedVersion>,
    /// When it was last known to be current: when the node began to fetch it, or when the leader polled it.
    pub(super) confirmed: Instant,
    /// When a Mount or a refresh last requested it.
    pub(super) used: Instant,
    /// How the latest fetch failed, if it did.
    pub(super) failure: Option<FetchFailure>,
    /// The fingerprint under which the snapshot saves it; `None` if it must not be saved.
    pub(super) fingerprint: Option<Identity>,
    /// Whether an answer about another version of the secret makes it doubtful: new volumes receive it only
    /// after another fetch, however recently it was confirmed.
    pub(super) doubted: bool,
    /// Of a stage: when it last moved, in milliseconds since 1970. Only if that is unchanged is the version that
    /// holds it known to be the cached one, and not one of a later secret of the same name.
    pub(super) stage_moved: Option<i64>,
    /// The namespaces that use it. It is charged to the first of them.
    users: Vec<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum FetchFailure {
    /// The cloud was unreachable or failed, at this time.
    Outage(Instant),
    /// The service did not find it, for the first time at this time. One such answer may be a mistake.
    NotFound(Instant),
    /// The cloud denied it, or the secret is gone or disabled: new pods must not receive the version.
    Rejected,
}

impl VersionStamp {
    /// Whether a version that was seen shows that this one belonged to an earlier secret of the same name.
    /// Within one secret, a higher number is never older.
    fn is_contradicted_by(self, seen: Self) -> bool {
        seen.created > self.created && seen.number <= self.number
    }
}

impl CacheEntry {
    /// A version that was just confirmed.
    pub(super) fn new(
        version: Arc<CachedVersion>,
        confirmed: Instant,
        fingerprint: Option<Identity>,
    ) -> Self {
        Self {
            version,
            confirmed,
            used: Instant::now(),
            failure: None,
            fingerprint,
            doubted: false,
            stage_moved: None,
            users: Vec::new(),
        }
    }

    /// The namespaces that use it.
    pub(super) fn users(&self) -> &[Arc<str>] {
        &self.users
    }

    /// To whom it is charged; empty if nobody is known to use it.
    fn payer(&self) -> &str {
        self.users.first().map_or("", |user| user)
    }

    fn bytes(&self) -> usize {
        self.version.value.bytes().len() + ENTRY_OVERHEAD
    }
}

/// All entries. Those from a snapshot are keyed by the fingerprint of their identity until they are used.
#[derive(Default)]
pub(super) struct Entries {
    by_key: HashMap<CacheKey, CacheEntry>,
    /// What namespaces are charged, in bytes.
    charges: NamespaceSizes,
    /// One copy of the name of each namespace.
    namespaces: HashSet<Arc<str>>,
}

impl Entries {
    pub(super) fn get(&self, key: &CacheKey) -> Option<&CacheEntry> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &CacheKey) -> Option<&mut CacheEntry> {
        self.by_key.get_mut(key)
    }

    pub(super) fn contains(&self, key: &CacheKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CacheKey, &CacheEntry)> {
        self.by_key.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&CacheKey, &mut CacheEntry)> {
        self.by_key.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes of all entries, [`ENTRY_OVERHEAD`] included.
    pub(super) fn bytes(&self) -> usize {
        self.charges.total()
    }

    /// Inserts an entry for these namespaces, and for those that use the one that it replaces.
    pub(super) fn insert(
        &mut self,
        key: CacheKey,
        entry: CacheEntry,
        users: Vec<Arc<str>>,
    ) -> Option<CacheEntry> {
        let old = self.remove(&key);
        self.charges.add(entry.payer(), entry.bytes());
        self.by_key.insert(key.clone(), entry);
        if let Some(old) = &old {
            self.add_users(&key, old.users.clone());
        }
        self.add_users(&key, users);
        old
    }

    pub(super) fn remove(&mut self, key: &CacheKey) -> Option<CacheEntry> {
        let old = self.by_key.remove(key)?;
        self.charges.subtract(old.payer(), old.bytes());
        Some(old)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&CacheEntry) -> bool) {
        self.by_key.retain(|_, entry| {
            let keeps = keep(entry);
            if !keeps {
                self.charges.subtract(entry.payer(), entry.bytes());
            }
            keeps
        });
        self.namespaces
            .retain(|namespace| Arc::strong_count(namespace) > 1);
    }

    /// Records that these tenants use an entry.
    pub(super) fn note_users(&mut self, key: &CacheKey, turn: &Turn) {
        let Some(entry) = self.by_key.get(key) else {
            return;
        };
        let is_new = |tenant: &str| entry.users.iter().all(|user| **user != *tenant);
        let new = turn.tenants_that(is_new);
        if !new.is_empty() {
            self.add_users(key, new);
        }
    }

    fn add_users(&mut self, key: &CacheKey, users: Vec<Arc<str>>) {
        let Some(entry) = self.by_key.get_mut(key) else {
            return;
        };
        self.charges.subtract(entry.payer(), entry.bytes());
        for user in users {
            if entry.users.len() < MAX_USERS && !entry.users.contains(&user) {
                let known = self.namespaces.get(&user).cloned();
                entry.users.push(known.unwrap_or_else(|| {
                    self.namespaces.insert(Arc::clone(&user));
                    user
                }));
            }
        }
        self.charges.add(entry.payer(), entry.bytes());
    }

    /// Removes the versions of a secret that `seen`, another version of it, contradicts. If there are any, all
    /// older ones are doubtful. Returns whether there were.
    pub(super) fn contradict(
        &mut self,
        is_of_secret: impl Fn(&CacheKey) -> bool,
        seen: VersionStamp,
    ) -> bool {
        let of_secret: Vec<(CacheKey, VersionStamp)> = (self.by_key.iter())
            .filter(|(key, _)| is_of_secret(key))
            .map(|(key, entry)| (key.clone(), entry.version.stamp()))
            .collect();
        let (contradicted, others): (Vec<_>, Vec<_>) = of_secret
            .into_iter()
            .partition(|(_, stamp)| stamp.is_contradicted_by(seen));
        for (key, _) in &contradicted {
            self.remove(key);
        }
        if contradicted.is_empty() {
            return false;
        }
        for (key, stamp) in others {
            if let Some(entry) = self.by_key.get_mut(&key) {
                entry.doubted |= stamp.created < seen.created;
            }
        }
        true
    }

    /// Whether a cached version of the secret contradicts `seen`, which is then an outdated answer.
    pub(super) fn contradicts(
        &self,
        is_of_secret: impl Fn(&CacheKey) -> bool,
        seen: VersionStamp,
    ) -> bool {
        (self.by_key.iter())
            .any(|(key, entry)| is_of_secret(key) && seen.is_contradicted_by(entry.version.stamp()))
    }

    /// Evicts entries until at most `max_bytes` remain: of the namespace that is charged the most, the least
    /// recently used one. Only misuse reaches the limit, so the cost does not matter.
    pub(super) fn shrink(&mut self, max_bytes: usize) {
        if self.bytes() <= max_bytes {
            return;
        }
        let keys: Vec<CacheKey> = self.by_key.keys().cloned().collect();
        let mut by_payer: HashMap<String, BinaryHeap<Reverse<(Instant, usize)>>> = HashMap::new();
        for (index, entry) in self.by_key.values().enumerate() {
            let oldest_first = match by_payer.get_mut(entry.payer()) {
                Some(known) => known,
                None => by_payer.entry(entry.payer().to_owned()).or_default(),
            };
            oldest_first.push(Reverse((entry.used, index)));
        }
        while self.bytes() > max_bytes && self.by_key.len() > 1 {
            let largest = self.charges.largest();
            let oldest = largest.and_then(|largest| by_payer.get_mut(largest)?.pop());
            let Some(oldest @ Reverse((_, index))) = oldest else {
                return;
            };
            match self.charge_to_lightest(&keys[index]) {
                Some(other) => by_payer.entry(other.to_owned()).or_default().push(oldest),
                None => drop(self.remove(&keys[index])),
            }
        }
    }

    /// Charges an entry to the lightest of its users, if it still is lighter than the present one then. Returns
    /// that user.
    fn charge_to_lightest(&mut self, key: &CacheKey) -> Option<&str> {
        let entry = self.by_key.get_mut(key)?;
        let charged = |index: &usize| self.charges.of(&entry.users[*index]);
        let lightest = (0..entry.users.len()).min_by_key(charged)?;
        if charged(&lightest) + entry.bytes() >= self.charges.of(entry.payer()) {
            return None;
        }
        self.charges.subtract(entry.payer(), entry.bytes());
        entry.users.swap(0, lightest);
        self.charges.add(entry.payer(), entry.bytes());
        Some(entry.payer())
    }
}
