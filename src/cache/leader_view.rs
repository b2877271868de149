//! The leader's latest revision of each secret, and what it means for a cached version.
//!
//! A revision does not depend on who reads the secret: it says that `latest` or a stage moved. A node always
//! fetches the value with the identity of the pod or class that uses it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::entries::{CacheEntry, VersionStamp};
use super::key::CacheKey;
use crate::cloud::{VersionSelector, version_number};

/// Kinds of failures that lie with the leader: the same call may succeed on another node.
const LEADER_FAILURES: [&str; 5] = [
    "Denied",
    "Credentials",
    "CredentialsExpired",
    "ClockSkew",
    "Configuration",
];

/// A secret that pods follow by `latest` or by a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef<'a> {
    /// Its region.
    pub region: &'a str,
    /// Its project, if the class or the provider sets one.
    pub project: Option<&'a str>,
    /// Its name.
    pub secret: &'a str,
    /// The stage; `None` for `latest`.
    pub stage: Option<&'a str>,
}

impl SecretRef<'_> {
    /// Whether a key is of this secret under the identity with which the leader polls, whatever the version.
    pub(super) fn is_of(&self, key: &CacheKey) -> bool {
        key.identity.is_default()
            && key.secret == self.secret
            && key.region.as_str() == self.region
            && key.project.as_deref() == self.project
    }
}

/// The version that `latest` or a stage stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedVersion {
    /// The newest version, or the one that holds the stage.
    pub version: String,
    /// For `latest`, the holder of `SYSCURRENT`.
    pub current: Option<String>,
    /// When the version was created, in milliseconds since 1970.
    pub created: Option<i64>,
}

/// What the leader published about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The resolved version, if it is known.
    pub resolved: Option<ResolvedVersion>,
    /// Kind and cause, if the leader could not confirm it.
    pub failure: Option<(String, String)>,
    /// The time over which nodes spread their fetches.
    pub spread: Duration,
    /// How often the leader polls the secret.
    pub interval: Duration,
}

impl Revision {
    /// The stamp of the resolved version, if its creation time is known.
    pub(super) fn stamp(&self) -> Option<VersionStamp> {
        let resolved = self.resolved.as_ref()?;
        Some(VersionStamp {
            number: version_number(&resolved.version),
            created: resolved.created?,
        })
    }

    fn failure_kind(&self) -> Option<&str> {
        self.failure.as_ref().map(|(kind, _)| kind.as_str())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.failure_kind() == Some("NotFound")
    }

    fn rejection(&self) -> Option<Rejection> {
        match self.failure_kind()? {
            "NotFound" => Some(Rejection::Gone),
            "Disabled" => Some(Rejection::Disabled),
            _ => None,
        }
    }
}

/// A revision, and when it changed.
pub(super) struct ObservedRevision {
    revision: Revision,
    /// When the current version was first observed.
    moved: Instant,
    failing_since: Option<Instant>,
    /// That the secret is gone or disabled. Only a version ends that, not a poll that failed later.
    rejection: Option<Rejection>,
}

#[derive(Clone, Copy, PartialEq)]
enum Rejection {
    Gone,
    Disabled,
}

/// Whether a cached version matches the leader's latest revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// No leader covers the secret: the node polls it.
    NotCovered,
    /// The cached version is the one that the leader published.
    Confirmed,
    /// The secret moved, and the cached version is not the new one: the node has to fetch it.
    Outdated {
        /// When this node observed the move.
        since: Instant,
        /// The time over which nodes spread their fetches.
        spread: Duration,
    },
    /// The leader could not confirm the secret.
    Failing {
        /// Since when.
        since: Instant,
        /// Why.
        cause: String,
    },
}

/// The latest revision of each secret, and the leader's heartbeat.
#[derive(Default)]
pub(super) struct LeaderView {
    revisions: HashMap<u64, ObservedRevision>,
    /// Randomly seeded, so nobody can construct collisions; accidental ones are negligible at 64 bits.
    hasher: RandomState,
    heartbeat: Option<Instant>,
}

impl LeaderView {
    fn hash(&self, secret: SecretRef<'_>) -> u64 {
        self.hasher.hash_one(secret)
    }

    fn hash_of(&self, key: &CacheKey) -> Option<u64> {
        // The leader does not cover secrets that pods fetch with other credentials than its own: what these see
        // may be another account.
        if !key.identity.is_default() {
            return None;
        }
        let stage = match &key.selector {
            VersionSelector::Latest => None,
            VersionSelector::Stage(stage) => Some(stage.as_str()),
            VersionSelector::Version(_) => return None,
        };
        Some(self.hash(SecretRef {
            region: key.region.as_str(),
            project: key.project.as_deref(),
            secret: &key.secret,
            stage,
        }))
    }

    fn get(&self, key: &CacheKey) -> Option<&ObservedRevision> {
        if self.revisions.is_empty() {
            return None;
        }
        self.revisions.get(&self.hash_of(key)?)
    }

    /// The revision of a key, if a live leader covers it.
    fn authoritative(&self, key: &CacheKey, interval: Duration) -> Option<&ObservedRevision> {
        self.heartbeat
            .filter(|heartbeat| heartbeat.elapsed() <= 2 * interval)?;
        let observed = self.get(key)?;
        let kind = observed.revision.failure_kind();
        let is_leader_failure = kind.is_some_and(|kind| LEADER_FAILURES.contains(&kind));
        (!is_leader_failure).then_some(observed)
    }

    /// Whether a live leader covers the key.
    pub(super) fn covers(&self, key: &CacheKey, interval: Duration) -> bool {
        self.authoritative(key, interval).is_some()
    }

    /// Whether the last revision says that the secret does not exist.
    pub(super) fn is_gone(&self, key: &CacheKey) -> bool {
        self.get(key)
            .is_some_and(|observed| observed.rejection == Some(Rejection::Gone))
    }

    /// Whether the last revision of a key, or of `latest` of its secret, says that the secret is gone or disabled.
    pub(super) fn rejects(&self, key: &CacheKey) -> bool {
        if self.revisions.is_empty() || !key.identity.is_default() {
            return false;
        }
        let latest = self.hash(SecretRef {
            region: key.region.as_str(),
            project: key.project.as_deref(),
            secret: &key.secret,
            stage: None,
        });
        let of_secret = self.revisions.get(&latest);
        let known = of_secret.into_iter().chain(self.get(key));
        known
            .into_iter()
            .any(|observed| observed.rejection.is_some())
    }

    /// Whether a live leader covers the key and says that the secret does not exist.
    pub(super) fn is_confirmed_gone(&self, key: &CacheKey, interval: Duration) -> bool {
        let observed = self.authoritative(key, interval);
        observed.is_some_and(|observed| observed.rejection == Some(Rejection::Gone))
    }

    pub(super) fn status(
        &self,
        key: &CacheKey,
        interval: Duration,
        entry: Option<&CacheEntry>,
    ) -> SyncStatus {
        self.authoritative(key, interval)
            .map_or(SyncStatus::NotCovered, |observed| observed.status(entry))
    }

    /// Stores a revision. If it is a rejection, returns a predicate for the keys that it rejects.
    pub(super) fn apply(
        &mut self,
        secret: SecretRef<'_>,
        revision: Revision,
        at: Instant,
    ) -> Option<impl Fn(&Self, &CacheKey) -> bool + use<>> {
        let hash = self.hash(secret);
        let old = self.revisions.remove(&hash);
        let before = old.as_ref().and_then(|old| old.rejection);
        let rejection = match &revision.failure {
            None => None,
            Some(_) => revision.rejection().or(before),
        };
        let moved = match &old {
            // A secret that is no longer rejected has to be fetched again.
            Some(old)
                if old.revision.resolved == revision.resolved
                    && (before.is_none() || rejection.is_some()) =>
            {
                old.moved
            }
            _ => at,
        };
        let rejected = revision.rejection().is_some();
        let failing_since = revision.failure.as_ref().map(|_| {
            let before = old.as_ref().and_then(|old| old.failing_since);
            before.unwrap_or(at)
        });
        let observed = ObservedRevision {
            revision,
            moved,
            failing_since,
            rejection,
        };
        self.revisions.insert(hash, observed);
        rejected.then_some(move |view: &Self, key: &CacheKey| view.hash_of(key) == Some(hash))
    }

    /// Removes the revision of a secret that the leader no longer covers.
    pub(super) fn remove(&mut self, secret: SecretRef<'_>) {
        let hash = self.hash(secret);
        self.revisions.remove(&hash);
    }

    pub(super) fn heartbeat(&mut self, at: Instant) {
        self.heartbeat = Some(at);
    }

    /// When the leader last polled the secret of an entry, if a heartbeat at `at` confirms the entry.
    pub(super) fn confirms(
        &self,
        key: &CacheKey,
        entry: &CacheEntry,
        at: Instant,
    ) -> Option<Instant> {
        let observed = self.get(key)?;
        let polled = at.checked_sub(observed.revision.interval)?;
        let is_newer = polled > entry.confirmed;
        let is_current = observed.revision.failure.is_none() && observed.is_met_by(Some(entry));
        (is_newer && is_current).then_some(polled)
    }
}

impl ObservedRevision {
    fn status(&self, entry: Option<&CacheEntry>) -> SyncStatus {
        let failure = self.revision.failure.as_ref().zip(self.failing_since);
        match (self.is_met_by(entry), failure) {
            (false, _) => SyncStatus::Outdated {
                since: self.moved,
                spread: self.revision.spread,
            },
            (true, Some(((_, cause), since))) => SyncStatus::Failing {
                since,
                cause: cause.clone(),
            },
            (true, None) => SyncStatus::Confirmed,
        }
    }

    /// Whether the cached version is the published one, so that the node does not have to fetch it.
    fn is_met_by(&self, entry: Option<&CacheEntry>) -> bool {
        let Some(resolved) = &self.revision.resolved else {
            return true;
        };
        let Some(entry) = entry else { return false };
        if entry.confirmed >= self.moved {
            // A version fetched after the move must not be older than the observed one: replicas of CSMS
            // may lag.
            let number = version_number(&entry.version.id);
            let current = resolved.current.as_deref().map(version_number);
            return number >= version_number(&resolved.version) || current == Some(number);
        }
        // If `latest` may mean either of two versions, only a fetch can tell which.
        let unambiguous = resolved
            .current
            .as_ref()
            .is_none_or(|current| *current == resolved.version);
        let same_secret = resolved
            .created
            .is_none_or(|created| created == entry.version.create_time);
        unambiguous && entry.version.id == resolved.version && same_secret
    }
}
