//! What this node knows: versions of secrets, by who asked for them.
//!
//! One fetch at a time per key, however many pods ask. What is held expires by the age that the
//! asker accepts, not by a time of its own, and is dropped when nobody used it for a day or the
//! bound on bytes is reached.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, debug, info, info_span};

use crate::cloud::error::{ApiError, Kind};
use crate::cloud::{Caller, Cloud, SecretValue};
use crate::flight::{Flights, Lost};
use crate::observe::metrics::{Metrics, StoreLabels};

mod entry;
mod key;
mod persist;
mod saving;
mod shelf;
mod words;
pub use key::{Key, Selector};
pub use persist::{FolderError, StoreFile};
use saving::Saving;
use shelf::{Failure, Held, Shelf};
use words::Words;
pub use words::{Found, Standing, Subject, Word};

/// Unused for this long, a value is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of values, with what is kept around each.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// For this long the version that a stage points at need not be confirmed.
const HOLDER_IS_GOOD: Duration = Duration::from_secs(60 * 60);
/// For this long a failure is taken for the cloud's state.
const OUTAGE_LASTS: Duration = Duration::from_secs(10);
/// What a call may take to tell that its time is over.
const GRACE: Duration = Duration::from_millis(500);

/// A version of a secret with its value.
#[derive(Debug)]
pub struct Version {
    /// `v1`, `v2`, ….
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub create_time: i64,
    /// Its value.
    pub value: SecretValue,
}

impl Version {
    /// The number in its id, which is `v` and digits; 0 for anything else.
    pub fn number(&self) -> u32 {
        version_number(&self.id)
    }
}

fn version_number(id: &str) -> u32 {
    let digits = id.strip_prefix('v');
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// What is left where the cloud cannot be asked.
#[derive(Debug)]
pub struct LastGood {
    /// What the same identity fetched before.
    pub version: Arc<Version>,
    /// How long ago it was confirmed.
    pub age: Duration,
    /// Whether the cloud failed so lately that asking it again would only cost time.
    pub known_outage: bool,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    cloud: Cloud,
    shelf: Mutex<Shelf>,
    words: Mutex<Words>,
    flights: Flights<Key, Result<Arc<Version>, ApiError>>,
    max_bytes: usize,
    stale_limit: Duration,
    /// `None` where what is held ends with the process.
    saving: Option<Saving>,
    requests: Family<StoreLabels, Counter>,
    /// Taken out of `requests`: counted for every object of every repeated mount.
    hits: Counter,
    size: Gauge,
}

impl Store {
    /// A store that asks `cloud`, whose values are a last resort for `stale_limit`; with `file`
    /// after a restart too, if [`Store::save_changes`] is polled.
    pub fn new(
        cloud: Cloud,
        metrics: &Metrics,
        stale_limit: Duration,
        file: Option<StoreFile>,
    ) -> Self {
        Self::build(cloud, metrics, stale_limit, MAX_BYTES, file)
    }

    /// One without a file, with another bound on the bytes held.
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
        file: Option<StoreFile>,
    ) -> Self {
        let (saving, shelf) = match file.map(|file| Saving::new(file, stale_limit)) {
            Some((saving, shelf)) => (Some(saving), shelf),
            None => (None, Shelf::default()),
        };
        metrics.store_bytes.set(shelf.bytes as i64);
        Self(Arc::new(Inner {
            cloud,
            shelf: Mutex::new(shelf),
            words: Mutex::default(),
            flights: Flights::default(),
            max_bytes,
            stale_limit,
            saving,
            requests: metrics.store.clone(),
            hits: metrics
                .store
                .get_or_create(&StoreLabels { result: "hit" })
                .clone(),
            size: metrics.store_bytes.clone(),
        }))
    }

    /// What is held for `key`, if it was confirmed within `max_age`; `None` accepts any age.
    pub fn peek(&self, key: &Key, max_age: Option<Duration>) -> Option<Arc<Version>> {
        let now = Instant::now();
        let mut shelf = self.0.shelf();
        let held = shelf.held.get_mut(key)?;
        if max_age.is_some_and(|max| now.duration_since(held.checked) > max) {
            return None;
        }
        held.used = now;
        let version = Arc::clone(&held.version);
        drop(shelf);
        self.0.hits.inc();
        Some(version)
    }

    /// The version for `key`: what is held if it is fresh enough, else what the cloud answers.
    ///
    /// # Errors
    /// Those of the calls to the cloud, and [`Kind::Timeout`] at `deadline`.
    pub async fn get(
        &self,
        caller: &Caller,
        key: Key,
        max_age: Option<Duration>,
        deadline: Instant,
    ) -> Result<Arc<Version>, ApiError> {
        if let Some(version) = self.peek(&key, max_age) {
            return Ok(version);
        }
        // The call may outlive who asked first, so it has a span of its own.
        let span = info_span!("fetch", secret = key.secret, request_id = Empty);
        let call = Arc::clone(&self.0)
            .fetch(caller.clone(), key.clone(), deadline)
            .instrument(span);
        // The call's own word tells more than that it took too long.
        let patience = deadline + GRACE;
        let (answer, joined) = self.0.flights.run(key, patience, call).await;
        let result = answer.unwrap_or_else(|lost| Err(lost_error(lost)));
        self.0.count(match (&result, joined) {
            (Err(_), _) => "failed",
            (Ok(_), true) => "joined",
            (Ok(_), false) => "fetched",
        });
        result
    }

    /// What `key` of `caller` had last, if the cloud did not refuse it since, and it is not too
    /// old.
    pub async fn last_good(&self, caller: &Caller, key: &Key) -> Option<LastGood> {
        self.0.take_saved(caller, key).await;
        let now = Instant::now();
        let mut shelf = self.0.shelf();
        let held = shelf.held.get_mut(key)?;
        let age = now.duration_since(held.checked);
        let known_outage = match held.failure {
            Some(Failure::Refused) => return None,
            Some(Failure::Outage(at)) => now.duration_since(at) < OUTAGE_LASTS,
            None => false,
        };
        if age > self.0.stale_limit {
            return None;
        }
        held.used = now;
        Some(LastGood {
            version: Arc::clone(&held.version),
            age,
            known_outage,
        })
    }

    /// Counts a value that was served as a last resort.
    pub fn served_stale(&self) {
        self.0.count("stale");
    }

    /// Drops what nobody used for a day. To be called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut shelf = self.0.shelf();
        let before = shelf.held.len();
        shelf.retain(|held| now.duration_since(held.used) < FORGET_AFTER);
        self.0.size.set(shelf.bytes as i64);
        if let Some(saving) = &self.0.saving
            && shelf.held.len() < before
        {
            saving.changed();
        }
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, result: &'static str) {
        self.requests.get_or_create(&StoreLabels { result }).inc();
    }

    async fn fetch(
        self: Arc<Self>,
        caller: Caller,
        key: Key,
        deadline: Instant,
    ) -> Result<Arc<Version>, ApiError> {
        let result = self.ask(&caller, &key, deadline).await;
        match &result {
            Ok(_) => {}
            Err(error) if error.kind.is_outage() => {
                // A no stays one when the cloud goes away after it.
                if let Some(held) = self.shelf().held.get_mut(&key)
                    && held.failure != Some(Failure::Refused)
                {
                    held.failure = Some(Failure::Outage(Instant::now()));
                }
            }
            Err(_) => self.refuse(&key, self.lasting(&caller, &key).await),
        }
        result
    }

    async fn ask(
        &self,
        caller: &Caller,
        key: &Key,
        deadline: Instant,
    ) -> Result<Arc<Version>, ApiError> {
        let begun = Instant::now();
        let version = match &key.selector {
            Selector::Latest => self.show(caller, &key.secret, "latest", deadline).await?,
            Selector::Version(id) => self.show(caller, &key.secret, id, deadline).await?,
            Selector::Stage(stage) => {
                let stage = self
                    .cloud
                    .show_secret_stage(caller, &key.secret, stage, deadline)
                    .await?;
                // Its value never changes, but the secret may be gone, or another of its name there.
                let id = stage.version_id;
                let of_holder = Key {
                    selector: Selector::Version(id.clone()),
                    ..key.clone()
                };
                let known = (self.shelf().held.get(&of_holder))
                    .filter(|held| begun.duration_since(held.checked) < HOLDER_IS_GOOD)
                    .map(|held| Arc::clone(&held.version));
                match known {
                    Some(version) => version,
                    None => {
                        let version = self.show(caller, &key.secret, &id, deadline).await?;
                        self.keep(caller, of_holder, Arc::clone(&version), begun)
                            .await;
                        version
                    }
                }
            }
        };
        let kept = self.keep(caller, key.clone(), Arc::clone(&version), begun);
        if kept.await {
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
    ) -> Result<Arc<Version>, ApiError> {
        let answer = self
            .cloud
            .show_secret_version(caller, secret, version, deadline)
            .await?;
        let id = answer.metadata.id;
        if version != "latest" && id != version {
            let message = format!("asked for version {version}, got {id}");
            return Err(ApiError::local(
                "ShowSecretVersion",
                Kind::Malformed,
                message,
            ));
        }
        Ok(Arc::new(Version {
            id,
            create_time: answer.metadata.create_time,
            value: answer.value,
        }))
    }

    /// Puts the version on the shelf; returns whether another one, or none, was there.
    async fn keep(
        &self,
        caller: &Caller,
        key: Key,
        version: Arc<Version>,
        checked: Instant,
    ) -> bool {
        let id = version.id.clone();
        let lasting = self.lasting(caller, &key).await;
        let saved = lasting.clone().map(|lasting| key.of(lasting));
        let held = Held {
            version,
            checked,
            used: Instant::now(),
            failure: None,
            lasting: lasting.clone(),
        };
        let mut shelf = self.shelf();
        let saved = saved.and_then(|key| shelf.remove(&key));
        let old = shelf.insert(key, held);
        shelf.shrink(self.max_bytes);
        self.size.set(shelf.bytes as i64);
        drop(shelf);
        if let Some(saving) = &self.saving {
            let same = |held: &Held| held.version.id == id && held.lasting == lasting;
            if saved.iter().chain(&old).any(same) {
                saving.confirmed();
            } else {
                saving.changed();
            }
        }
        old.is_none_or(|old| old.version.id != id)
    }
}

fn lost_error(lost: Lost) -> ApiError {
    let (kind, message) = match lost {
        Lost::Late => (
            Kind::Timeout,
            "no answer within the time that the mount had left",
        ),
        Lost::Panicked => (
            Kind::Server,
            "dew-provider failed inside: a bug, please report it",
        ),
    };
    ApiError::local("ShowSecretVersion", kind, message)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}
