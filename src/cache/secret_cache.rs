//! The cache of secret versions.
//!
//! Concurrent requests for a key share one fetch. Versions do not expire: each request sets the maximum
//! age. The cache drops versions that nobody used for a day. Beyond its size limit, the namespace that uses the
//! most of it loses the least recently used ones of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, debug, info, info_span};

use super::entries::{CacheEntry, CachedVersion, Entries, FetchFailure, VersionStamp};
use super::key::CacheKey;
use super::leader_view::{LeaderView, Revision, SecretRef, SyncStatus};
use super::refresh_state::Refreshes;
use super::rejections::Rejections;
use super::snapshot::{SavedVersion, SnapshotFile, SnapshotWriter};
use crate::cloud::{ApiError, Caller, Cloud, Csms, ErrorKind, Identity, Turn, VersionSelector};
use crate::telemetry::metrics::{CacheLabels, Metrics};
use crate::util::single_flight::SingleFlight;

/// The cache drops versions that nobody used for this long.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum size of all entries, in bytes.
const MAX_BYTES: usize = 24 * 1024 * 1024;
/// How long the cache uses the version that holds a stage without fetching that version again.
const STAGE_HOLDER_VALID_FOR: Duration = Duration::from_secs(60 * 60);
/// How long a failed fetch counts as a known outage.
const OUTAGE_KNOWN_FOR: Duration = Duration::from_secs(10);
/// The second "not found" counts only this long after the first, so that it is another answer.
pub const NOT_FOUND_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Extra time in which a call can report its own timeout, with a better message than that of the wait.
const TIMEOUT_GRACE: Duration = Duration::from_millis(500);

/// The last version that the cloud returned, for use during an outage.
#[derive(Debug)]
pub struct LastGood {
    /// The version that the same identity fetched earlier.
    pub version: Arc<CachedVersion>,
    /// How long ago it was confirmed.
    pub age: Duration,
    /// Whether the cloud failed so recently that another request would only cost time.
    pub known_outage: bool,
}

/// What is known about a secret under one key.
#[derive(Clone, Debug)]
pub struct SecretStatus {
    /// How the cached version compares with the leader's latest revision.
    pub sync: SyncStatus,
    /// When the cached version was last known to be current, by a fetch or by the leader.
    pub confirmed: Option<Instant>,
    /// Since when the secret cannot be confirmed, and why.
    pub failure: Option<(Instant, String)>,
}

/// The cache. Clones share it.
#[derive(Clone)]
pub struct SecretCache(Arc<CacheShared>);

struct CacheShared {
    csms: Csms,
    cloud: Cloud,
    state: Mutex<CacheState>,
    fetches: SingleFlight<CacheKey, Result<Arc<CachedVersion>, ApiError>>,
    max_bytes: usize,
    stale_limit: Duration,
    /// `None` if cached versions are not saved across restarts.
    snapshot: Option<SnapshotWriter>,
    requests: Family<CacheLabels, Counter>,
    /// A counter of `requests`, looked up once because it counts every object of every repeated mount.
    hits: Counter,
    size: Gauge,
}

/// What a rejection means for the other versions of its secret.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Others {
    /// It is about the secret: none may be served.
    Rejected,
    /// It may apply to them: new volumes receive them only after another fetch.
    Doubted,
    /// It is about one version or stage.
    Untouched,
}

impl Others {
    fn after(error: &ApiError) -> Self {
        match error.kind {
            _ if error.concerns_whole_secret() => Self::Rejected,
            ErrorKind::Denied => Self::Doubted,
            _ => Self::Untouched,
        }
    }
}

#[derive(Default)]
struct CacheState {
    entries: Entries,
    leader: LeaderView,
    refreshes: Refreshes,
    rejections: Rejections,
    /// Whose turns the fetches in flight use.
    turns: HashMap<CacheKey, Turn>,
}

impl SecretCache {
    /// A cache that fetches through `cloud` and, during an outage, serves versions up to `stale_limit` old.
    /// With `snapshot`, versions survive a restart, provided that [`SecretCache::run_snapshots`] is polled.
    pub fn new(
        cloud: Cloud,
        metrics: &Metrics,
        stale_limit: Duration,
        snapshot: Option<SnapshotFile>,
    ) -> Self {
        Self::build(cloud, metrics, stale_limit, MAX_BYTES, snapshot)
    }

    /// A cache without a snapshot, and with another size limit in bytes.
    #[cfg(any(test, feature = "sim"))]
    pub fn with_max_bytes(
        cloud: Cloud,
        metrics: &Metrics,
        stale_limit: Duration,
        max_bytes: usize,
    ) -> Self {
        Self::build(cloud, metrics, stale_limit, max_bytes, None)
    }

    fn build(
        cloud: Cloud,
        metrics: &Metrics,
        stale_limit: Duration,
        max_bytes: usize,
        snapshot: Option<SnapshotFile>,
    ) -> Self {
        let mut state = CacheState::default();
        let snapshot = snapshot.map(|file| {
            let (writer, saved) = SnapshotWriter::load(file, stale_limit);
            for SavedVersion {
                key,
                version,
                confirmed,
                users,
            } in saved
            {
                let fingerprint = Some(key.identity.clone());
                let entry = CacheEntry::new(version, confirmed, fingerprint);
                state.entries.insert(key, entry, users);
            }
            writer
        });
        metrics.cache_bytes.set(state.entries.bytes() as i64);
        Self(Arc::new(CacheShared {
            csms: Csms::new(cloud.clone()),
            cloud,
            state: Mutex::new(state),
            fetches: SingleFlight::default(),
            max_bytes,
            stale_limit,
            snapshot,
            requests: metrics.cache.clone(),
            hits: metrics
                .cache
                .get_or_create(&CacheLabels { result: "hit" })
                .clone(),
            size: metrics.cache_bytes.clone(),
        }))
    }

    /// The cached version, if it was confirmed within `max_age`; `None` accepts any age.
    pub fn peek(
        &self,
        caller: &Caller,
        key: &CacheKey,
        max_age: Option<Duration>,
    ) -> Option<Arc<CachedVersion>> {
        let now = Instant::now();
        let mut state = self.0.state();
        let entry = state.entries.get_mut(key)?;
        // New volumes get nothing that was rejected, however recently it was confirmed; mounted ones keep it.
        let is_withheld = entry.doubted || entry.failure == Some(FetchFailure::Rejected);
        let is_too_old = |max| is_withheld || now.duration_since(entry.confirmed) > max;
        if max_age.is_some_and(is_too_old) {
            return None;
        }
        entry.used = now;
        let version = Arc::clone(&entry.version);
        state.entries.note_users(key, &caller.turn);
        drop(state);
        self.0.hits.inc();
        Some(version)
    }

    /// The cached version if it is fresh enough, else the one that the cloud returns.
    ///
    /// # Errors
    /// Those of the calls to the cloud, and [`ErrorKind::Timeout`] at `deadline`. "Not found" and "denied" are
    /// remembered for 5 s, and "not found" in a row for up to 20 s.
    pub async fn get(
        &self,
        caller: &Caller,
        key: CacheKey,
        max_age: Option<Duration>,
        deadline: Instant,
    ) -> Result<Arc<CachedVersion>, ApiError> {
        if let Some(version) = self.peek(caller, &key, max_age) {
            return Ok(version);
        }
        if let Some(error) = self.0.state().rejections.get(&key) {
            self.0.count("failed");
            return Err(error);
        }
        let turn = self.0.join_turns(&key, &caller.turn);
        let caller = Caller {
            turn,
            ..caller.clone()
        };
        // The fetch may outlive the caller that started it, so it has a span of its own.
        let span = info_span!("fetch", secret = key.secret, request_id = Empty);
        let fetch = Arc::clone(&self.0)
            .fetch(caller, key.clone(), deadline)
            .instrument(span)
            .boxed();
        let (result, joined) = self
            .0
            .fetches
            .run(key, deadline + TIMEOUT_GRACE, fetch)
            .await;
        let result =
            result.unwrap_or_else(|error| Err(ApiError::from_flight("ShowSecretVersion", error)));
        self.0.count(match (&result, joined) {
            (Err(_), _) => "failed",
            (Ok(_), true) => "joined",
            (Ok(_), false) => "fetched",
        });
        result
    }

    /// The version that `caller` last fetched for `key`, unless the cloud has rejected it since then or it is
    /// older than the stale limit.
    pub async fn last_good(&self, caller: &Caller, key: &CacheKey) -> Option<LastGood> {
        self.0.adopt_saved(caller, key).await;
        let now = Instant::now();
        let mut state = self.0.state();
        if state.leader.rejects(key) {
            return None;
        }
        let entry = state.entries.get_mut(key)?;
        let age = now.duration_since(entry.confirmed);
        let known_outage = match entry.failure {
            Some(FetchFailure::Rejected) => return None,
            Some(FetchFailure::Outage(at)) => now.duration_since(at) < OUTAGE_KNOWN_FOR,
            Some(FetchFailure::NotFound(_)) | None => false,
        };
        if age > self.0.stale_limit {
            return None;
        }
        entry.used = now;
        let version = Arc::clone(&entry.version);
        state.entries.note_users(key, &caller.turn);
        Some(LastGood {
            version,
            age,
            known_outage,
        })
    }

    /// The cached version, if the leader confirms that it is the current one.
    pub fn confirmed(&self, key: &CacheKey, interval: Duration) -> Option<Arc<CachedVersion>> {
        let state = self.0.state();
        let entry = state.entries.get(key)?;
        let sync = state.leader.status(key, interval, Some(entry));
        let is_usable = sync == SyncStatus::Confirmed && !entry.doubted;
        is_usable.then(|| Arc::clone(&entry.version))
    }

    /// Waits until the rate limit has admitted the fetch of a key that is in flight.
    pub async fn admitted(&self, key: &CacheKey) {
        let turn = self.0.state().turns.get(key).cloned();
        match turn {
            Some(turn) => turn.admitted().await,
            None => std::future::pending().await,
        }
    }

    /// Records that the cloud did not answer a fetch in flight in the time that a Mount with a last good version
    /// waits, which counts as an outage.
    pub fn note_slow(&self, key: &CacheKey) {
        if let Some(entry) = self.0.state().entries.get_mut(key)
            && entry.failure != Some(FetchFailure::Rejected)
        {
            entry.failure = Some(FetchFailure::Outage(Instant::now()));
        }
    }

    /// Counts a version that was served during an outage.
    pub fn count_stale(&self) {
        self.0.count("stale");
    }

    /// Drops versions that nobody used for a day. To be called periodically.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.0.state();
        let before = state.entries.len();
        state
            .entries
            .retain(|entry| now.duration_since(entry.used) < FORGET_AFTER);
        state.rejections.sweep();
        // A caller may have joined a fetch just as it ended.
        state.turns.retain(|_, turn| turn.is_in_use());
        self.0.size.set(state.entries.bytes() as i64);
        if let Some(snapshot) = &self.0.snapshot
            && state.entries.len() < before
        {
            snapshot.note_change();
        }
    }

    // Revisions and heartbeats of the leader.

    /// Applies a revision of the leader, observed at `at`.
    pub fn apply_revision(&self, secret: SecretRef<'_>, revision: Revision, at: Instant) {
        let seen = revision.stamp();
        let exists = revision.failure.is_none();
        // CSMS disables secrets, not versions; and one that is not found without a stage does not exist.
        let whole_secret = secret.stage.is_none() || !revision.is_gone();
        let others = if whole_secret {
            Others::Rejected
        } else {
            Others::Untouched
        };
        let mut state = self.0.state();
        if exists {
            state.rejections.remove_secret(secret);
        }
        let rejects = state.leader.apply(secret, revision, at);
        let is_contradicted = seen.is_some_and(|seen| {
            let is_of_secret = |key: &CacheKey| secret.is_of(key);
            state.entries.contradict(is_of_secret, seen)
        });
        // The leader's rejection applies to this node, also during an outage that follows.
        let rejected: Vec<_> = (rejects.iter())
            .flat_map(|rejects| {
                let entries = state.entries.iter();
                entries.filter(|(key, _)| {
                    rejects(&state.leader, key) || (whole_secret && secret.is_of(key))
                })
            })
            .map(|(key, entry)| (key.clone(), entry.fingerprint.clone()))
            .collect();
        self.0.size.set(state.entries.bytes() as i64);
        drop(state);
        if let (Some(snapshot), true) = (&self.0.snapshot, is_contradicted) {
            snapshot.note_rejection();
        }
        for (key, fingerprint) in rejected {
            self.0.reject(&key, fingerprint, others);
        }
    }

    /// Removes the revision of a secret that the leader no longer covers.
    pub fn remove_revision(&self, secret: SecretRef<'_>) {
        self.0.state().leader.remove(secret);
    }

    /// Confirms the versions that match their revisions, because the leader had polled every secret within
    /// its interval at `at`.
    pub fn heartbeat(&self, at: Instant) {
        let mut state = self.0.state();
        let CacheState {
            entries, leader, ..
        } = &mut *state;
        leader.heartbeat(at);
        let mut confirmed = false;
        for (key, entry) in entries.iter_mut() {
            if let Some(polled) = leader.confirms(key, entry, at) {
                entry.confirmed = polled;
                // A "not found" before that is no longer the first of two in a row.
                if matches!(entry.failure, Some(FetchFailure::NotFound(_))) {
                    entry.failure = None;
                }
                confirmed = true;
            }
        }
        if let (Some(snapshot), true) = (&self.0.snapshot, confirmed) {
            snapshot.note_confirmation();
        }
    }

    /// Whether the leader says that the secret does not exist.
    pub fn is_gone(&self, key: &CacheKey, interval: Duration) -> bool {
        self.0.state().leader.is_confirmed_gone(key, interval)
    }

    /// Whether the last fetches of this node in the background did not find the secret of a key. They go on.
    pub fn is_awaited(&self, key: &CacheKey) -> bool {
        let state = self.0.state();
        !state.entries.contains(key) && state.refreshes.failure(key).is_some()
    }

    /// Whether a leader covers the key, so that a repeated Mount does not have to call the cloud.
    pub fn is_covered(&self, key: &CacheKey, interval: Duration) -> bool {
        self.0.state().leader.covers(key, interval)
    }

    /// The stamp of the cached version of a key; `None` if there is none, if the cloud has rejected it, or if
    /// the leader says that the secret does not exist.
    pub fn stamp(&self, key: &CacheKey) -> Option<VersionStamp> {
        let state = self.0.state();
        if state.leader.is_gone(key) {
            return None;
        }
        let entry = state.entries.get(key)?;
        (entry.failure != Some(FetchFailure::Rejected)).then(|| entry.version.stamp())
    }

    /// What is known about the secret under a key.
    pub fn status(&self, key: &CacheKey, interval: Duration) -> SecretStatus {
        let mut state = self.0.state();
        let entry = state.entries.get(key);
        let confirmed = entry.map(|entry| entry.confirmed);
        let sync = state.leader.status(key, interval, entry);
        let failure = match &sync {
            SyncStatus::Failing { since, cause } => Some((*since, cause.clone())),
            SyncStatus::Confirmed => {
                state.refreshes.forget_failure(key);
                None
            }
            SyncStatus::NotCovered | SyncStatus::Outdated { .. } => state.refreshes.failure(key),
        };
        SecretStatus {
            sync,
            confirmed,
            failure,
        }
    }

    // This node's own refreshes.

    /// Marks a refresh of the key as in flight until [`SecretCache::end_refresh`]; returns whether it may
    /// start. `moved` is when the secret moved, if that is the reason.
    pub fn begin_refresh(&self, key: &CacheKey, moved: Option<Instant>) -> bool {
        self.0.state().refreshes.begin(key, moved)
    }

    /// Records that a refresh that began at `tried` succeeded, or failed: then `failed` is the longest wait
    /// before the next one, and the cause.
    pub fn end_refresh(&self, key: &CacheKey, tried: Instant, failed: Option<(Duration, String)>) {
        let refreshes = &mut self.0.state().refreshes;
        match failed {
            None => refreshes.succeed(key),
            Some((max_backoff, cause)) => refreshes.fail(key, tried, max_backoff, cause),
        }
    }

    /// Marks the failure of a key as reported; returns whether it still has to be reported.
    pub fn report_failure(&self, key: &CacheKey) -> bool {
        self.0.state().refreshes.report(key)
    }

    /// Lets the next failure of a key be reported, because the key is confirmed again.
    pub fn reset_report(&self, key: &CacheKey) {
        self.0.state().refreshes.reset_report(key);
    }

    /// Forgets the refreshes of keys that are no longer in use.
    pub fn retain_refreshes(&self, in_use: impl Fn(&CacheKey) -> bool) {
        self.0.state().refreshes.retain(in_use);
    }

    // The snapshot.

    /// Writes the snapshot soon after changes. Runs until it is dropped.
    pub async fn run_snapshots(self) {
        let Some(snapshot) = &self.0.snapshot else {
            return;
        };
        loop {
            snapshot.due().await;
            self.write_snapshot(false).await;
            snapshot.pause().await;
        }
    }

    /// Writes the snapshot for the last time and releases the file to the next process.
    pub async fn close(&self) {
        self.write_snapshot(true).await;
    }

    async fn write_snapshot(&self, close: bool) {
        let shared = Arc::clone(&self.0);
        let written = spawn_blocking(move || {
            let snapshot = shared.snapshot.as_ref()?;
            Some(snapshot.write(|| shared.versions_to_save(), close))
        });
        // The task itself fails only if the process is shutting down.
        if let (Some(snapshot), Ok(Some(written))) = (&self.0.snapshot, written.await) {
            snapshot.log(&written);
        }
    }
}

/// Forgets the turn of a fetch when it ends, also by a panic.
struct InFlight<'a>(&'a CacheShared, &'a CacheKey);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().turns.remove(self.1);
    }
}

impl CacheShared {
    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, result: &'static str) {
        self.requests.get_or_create(&CacheLabels { result }).inc();
    }

    /// The turn of a fetch of this key, which uses those of all who wait for it.
    fn join_turns(&self, key: &CacheKey, own: &Turn) -> Turn {
        let mut state = self.state();
        let turn = state.turns.entry(key.clone()).or_default();
        turn.join(own);
        turn.clone()
    }

    async fn fetch(
        self: Arc<Self>,
        caller: Caller,
        key: CacheKey,
        deadline: Instant,
    ) -> Result<Arc<CachedVersion>, ApiError> {
        let _in_flight = InFlight(&self, &key);
        let result = self.read(&caller, &key, deadline).await;
        match &result {
            Ok(_) => self.state().rejections.remove(&key),
            Err(error) => {
                self.adopt_saved(&caller, &key).await;
                let is_rejection = self.note_failure(&key, error);
                // A first "not found" about a secret that was there has to be asked about again.
                let is_known = self.state().entries.contains(&key);
                if is_rejection || (error.is_definitive() && !is_known) {
                    self.state().rejections.add(&key, error);
                }
                if is_rejection {
                    let fingerprint = self.fingerprint(&caller, &key).await;
                    self.reject(&key, fingerprint, Others::after(error));
                }
            }
        }
        result
    }

    /// Records a failed fetch with the cached version. Returns whether it is a rejection.
    fn note_failure(&self, key: &CacheKey, error: &ApiError) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let known = state.entries.get(key).map(|entry| entry.failure);
        let failure = match (error.is_definitive(), error.kind, known) {
            // The cloud was not asked.
            (_, ErrorKind::RateLimited, _) => return false,
            // An earlier rejection still holds when the cloud fails after it.
            (false, _, Some(Some(FetchFailure::Rejected))) => return false,
            (false, ..) => FetchFailure::Outage(now),
            (true, ErrorKind::NotFound, Some(Some(FetchFailure::Rejected))) => return true,
            (true, ErrorKind::NotFound, Some(Some(FetchFailure::NotFound(first)))) => {
                return now.duration_since(first) >= NOT_FOUND_AGAIN_AFTER;
            }
            (true, ErrorKind::NotFound, _) => FetchFailure::NotFound(now),
            (true, ..) => return true,
        };
        if let Some(entry) = state.entries.get_mut(key) {
            entry.failure = Some(failure);
        }
        if error.is_definitive() && error.concerns_whole_secret() {
            let is_other = |other: &CacheKey| {
                other.identity == key.identity && other != key && other.has_secret_of(key)
            };
            let entries = state.entries.iter_mut();
            for (_, other) in entries.filter(|(other, _)| is_other(other)) {
                other.doubted = true;
            }
        }
        false
    }

    async fn read(
        &self,
        caller: &Caller,
        key: &CacheKey,
        deadline: Instant,
    ) -> Result<Arc<CachedVersion>, ApiError> {
        let started = Instant::now();
        let mut stage_moved = None;
        let version = match &key.selector {
            VersionSelector::Latest => self.show(caller, &key.secret, "latest", deadline).await?,
            VersionSelector::Version(id) => self.show(caller, &key.secret, id, deadline).await?,
            VersionSelector::Stage(stage) => {
                let stage = self
                    .csms
                    .show_secret_stage(caller, &key.secret, stage, deadline)
                    .await?;
                let (id, moved) = (stage.version_id, stage.update_time);
                let holder = CacheKey {
                    selector: VersionSelector::Version(id.clone()),
                    ..key.clone()
                };
                stage_moved = moved;
                // Its value never changes, but the secret may have been deleted, or replaced by another
                // of the same name.
                let known = {
                    let state = self.state();
                    let is_unmoved =
                        |stage: &CacheEntry| stage.version.id == id && stage.stage_moved == moved;
                    let is_unmoved = state.entries.get(key).is_some_and(is_unmoved);
                    let is_valid = |entry: &&CacheEntry| {
                        let age = started.duration_since(entry.confirmed);
                        is_unmoved && !entry.doubted && age < STAGE_HOLDER_VALID_FOR
                    };
                    let entry = state.entries.get(&holder).filter(is_valid);
                    entry.map(|entry| Arc::clone(&entry.version))
                };
                match known {
                    Some(version) => version,
                    None => {
                        let version = self.show(caller, &key.secret, &id, deadline).await?;
                        self.insert(caller, holder, Arc::clone(&version), started)
                            .await;
                        version
                    }
                }
            }
        };
        let is_new = self.insert(caller, key.clone(), Arc::clone(&version), started);
        let is_new = is_new.await;
        if let Some(entry) = self.state().entries.get_mut(key) {
            entry.stage_moved = stage_moved;
        }
        if is_new {
            info!(version = version.id, "fetched");
        } else {
            debug!(version = version.id, "confirmed");
        }
        Ok(version)
    }

    async fn show(
        &self,
        caller: &Caller,
        secret: &str,
        version: &str,
        deadline: Instant,
    ) -> Result<Arc<CachedVersion>, ApiError> {
        let shown = self
            .csms
            .show_secret_version(caller, secret, version, deadline)
            .await?;
        let id = shown.metadata.id;
        Ok(Arc::new(CachedVersion {
            id,
            create_time: shown.metadata.create_time,
            value: shown.value,
        }))
    }

    /// Caches a version. Returns whether it differs from the one cached before.
    async fn insert(
        &self,
        caller: &Caller,
        key: CacheKey,
        version: Arc<CachedVersion>,
        confirmed: Instant,
    ) -> bool {
        let id = version.id.clone();
        let fingerprint = self.fingerprint(caller, &key).await;
        let saved_key = fingerprint
            .clone()
            .map(|identity| key.with_identity(identity));
        let seen = version.stamp();
        let mut entry = CacheEntry::new(version, confirmed, fingerprint.clone());
        let is_of_secret = |other: &CacheKey| {
            let is_of_caller =
                other.identity == key.identity || Some(&other.identity) == fingerprint.as_ref();
            is_of_caller && other.has_secret_of(&key)
        };
        let mut state = self.state();
        let is_contradicted = state.entries.contradict(is_of_secret, seen);
        entry.doubted = state.entries.contradicts(is_of_secret, seen);
        let saved = saved_key.and_then(|key| state.entries.remove(&key));
        let users = (saved.iter().flat_map(CacheEntry::users).cloned())
            .chain(caller.turn.names())
            .collect();
        let old = state.entries.insert(key, entry, users);
        state.entries.shrink(self.max_bytes);
        self.size.set(state.entries.bytes() as i64);
        drop(state);
        if let Some(snapshot) = &self.snapshot {
            let same =
                |entry: &CacheEntry| entry.version.id == id && entry.fingerprint == fingerprint;
            if is_contradicted {
                snapshot.note_rejection();
            } else if saved.iter().chain(&old).any(same) {
                snapshot.note_confirmation();
            } else {
                snapshot.note_change();
            }
        }
        old.is_none_or(|old| old.version.id != id)
    }

    /// The fingerprint of the identity of `key`, if there is a snapshot.
    async fn fingerprint(&self, caller: &Caller, key: &CacheKey) -> Option<Identity> {
        self.snapshot.as_ref()?;
        self.cloud.fingerprint(caller, &key.identity).await
    }

    /// Moves the version that was saved for this caller before the restart to `key`.
    async fn adopt_saved(&self, caller: &Caller, key: &CacheKey) {
        if self.snapshot.is_none() || self.state().entries.contains(key) {
            return;
        }
        let Some(fingerprint) = self.fingerprint(caller, key).await else {
            return;
        };
        let mut state = self.state();
        if !state.entries.contains(key)
            && let Some(entry) = state.entries.remove(&key.with_identity(fingerprint))
        {
            state.entries.insert(key.clone(), entry, Vec::new());
        }
    }

    /// Withholds the cached and the saved version from new pods, because the cloud rejected a request.
    fn reject(&self, key: &CacheKey, fingerprint: Option<Identity>, others: Others) {
        let mut state = self.state();
        let mut was_saved = false;
        let mut removed = Vec::new();
        let saved_by =
            |entry: &CacheEntry| fingerprint.is_some() && entry.fingerprint == fingerprint;
        for (other, entry) in state.entries.iter_mut() {
            let is_rejected = match others {
                Others::Rejected => other.has_secret_of(key),
                Others::Doubted | Others::Untouched => other.equals_except_identity(key),
            };
            if Some(&other.identity) == fingerprint.as_ref() && is_rejected {
                removed.push(other.clone());
            } else if other.identity == key.identity && is_rejected {
                entry.failure = Some(FetchFailure::Rejected);
                was_saved |= entry.fingerprint.take().is_some();
            } else if saved_by(entry) && is_rejected {
                // The same access keys in another state of the credentials file have a separate cache key.
                entry.fingerprint = None;
                was_saved = true;
            } else if other.identity == key.identity && other.has_secret_of(key) {
                entry.doubted |= others == Others::Doubted;
            }
        }
        for saved in &removed {
            state.entries.remove(saved);
        }
        was_saved |= !removed.is_empty();
        self.size.set(state.entries.bytes() as i64);
        drop(state);
        if let (Some(snapshot), true) = (&self.snapshot, was_saved) {
            snapshot.note_rejection();
        }
    }

    /// The versions that may be served after a restart; of duplicates, the more recent one.
    fn versions_to_save(&self) -> Vec<SavedVersion> {
        let now = Instant::now();
        let mut found: HashMap<CacheKey, SavedVersion> = HashMap::new();
        for (key, entry) in self.state().entries.iter() {
            let Some(fingerprint) = &entry.fingerprint else {
                continue;
            };
            let key = key.with_identity(fingerprint.clone());
            let confirmed = entry.confirmed;
            if entry.failure == Some(FetchFailure::Rejected)
                || now.duration_since(confirmed) >= self.stale_limit
                || (found.get(&key)).is_some_and(|other| other.confirmed > confirmed)
            {
                continue;
            }
            let version = Arc::clone(&entry.version);
            found.insert(
                key.clone(),
                SavedVersion {
                    key,
                    version,
                    confirmed,
                    users: entry.users().to_vec(),
                },
            );
        }
        found.into_values().collect()
    }
}

impl std::fmt::Debug for SecretCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretCache")
    }
}
