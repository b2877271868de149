//! Step 5, fetch: the versions of all objects, concurrently, through the cache.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::error::{MountError, ObjectError};
use super::resolve::FetchPlan;
use crate::cache::{CacheKey, CachedVersion, LastGood, SecretCache};
use crate::class::objects::Object;
use crate::cloud::{ApiError, Caller, ErrorKind, VersionSelector};
use crate::node::volumes::{Delivered, MountRecord};
use crate::util::single_flight::FlightError;

/// Maximum number of objects of one mount that are fetched at once. The cloud client limits their rate.
const MAX_CONCURRENT: usize = 32;
/// The longest interval, so that the leader's report that a secret is gone counts for every class.
const ANY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long to wait for the cloud before serving the last good version.
const STALE_FALLBACK_AFTER: Duration = Duration::from_secs(10);
/// Share of the remaining time for the primary region if there is a failover region.
const PRIMARY_SHARE: f32 = 0.5;

/// An object with its version.
#[derive(Debug)]
pub struct FetchedObject {
    /// The object.
    pub object: Arc<Object>,
    /// The caller for whom it was fetched, or would have been.
    pub caller: Arc<Caller>,
    /// `None` for an optional object that does not exist.
    pub version: Option<Arc<CachedVersion>>,
    /// Set if this is the last good version, which could not be confirmed.
    pub stale: Option<Staleness>,
}

impl FetchedObject {
    /// What the volume receives for the object; `primary` is the caller in the primary region.
    pub(super) fn delivered(&self, primary: &Arc<Caller>) -> Delivered {
        match &self.version {
            Some(_) if !Arc::ptr_eq(&self.caller, primary) => Delivered::Failover,
            Some(version) => Delivered::Version(version.stamp()),
            None => Delivered::Nothing,
        }
    }
}

/// Why and for how long a version could not be confirmed.
#[derive(Debug)]
pub struct Staleness {
    /// How long ago it was confirmed.
    pub age: Duration,
    /// How the fetch failed; `None` if the cloud was not called because of a known outage.
    pub error: Option<ApiError>,
}

/// How long to wait for a version.
#[derive(Clone, Copy)]
struct Wait {
    /// When there must be a result.
    deadline: Instant,
    /// How long the cloud may take once the rate limit has admitted the call; `None` if there is nothing else to
    /// serve.
    patience: Option<Duration>,
}

impl Wait {
    /// This share of the time.
    fn share(self, share: f32) -> Self {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        Self {
            deadline: now + left.mul_f32(share),
            patience: self.patience.map(|patience| patience.mul_f32(share)),
        }
    }

    async fn get(
        self,
        cache: &SecretCache,
        caller: &Arc<Caller>,
        key: CacheKey,
        max_age: Option<Duration>,
    ) -> Result<Arc<CachedVersion>, ApiError> {
        let fetch = cache.get(caller, key.clone(), max_age, self.deadline);
        let Some(patience) = self.patience else {
            return fetch.await;
        };
        let is_slow = async {
            cache.admitted(&key).await;
            sleep(patience).await;
        };
        tokio::select! {
            biased;
            result = fetch => result,
            () = is_slow => {
                cache.note_slow(&key);
                Err(ApiError::from_flight("ShowSecretVersion", FlightError::TimedOut))
            }
        }
    }
}

/// Fetches all objects, each at most as old as its entry of `max_ages` (`None` is any age). `same` is the last Mount
/// of the volume, if it was with the same parameters.
///
/// # Errors
/// One error that lists all objects that failed.
pub(super) async fn fetch(
    plan: &FetchPlan,
    max_ages: &[Option<Duration>],
    same: Option<&MountRecord>,
    cache: &SecretCache,
) -> Result<Vec<FetchedObject>, MountError> {
    let was_missing = |index: usize| {
        let delivered = same.and_then(|record| record.delivered.get(index));
        delivered == Some(&Delivered::Nothing)
    };
    // First what the cache has: that is all objects of most repeated mounts, and needs no future.
    let mut results: Vec<Option<Result<FetchedObject, ObjectError>>> = (plan.keys.iter())
        .zip(max_ages)
        .zip(&plan.objects)
        .enumerate()
        .map(|(index, ((key, max_age), object))| {
            // Once the leader reports that the secret is gone, an optional object has no file.
            if object.optional && max_age.is_none() && cache.is_gone(key, ANY_INTERVAL) {
                return Some(Ok(fetched(object, &plan.caller, None)));
            }
            // Of a secret that was missing before, this node finds out in the background, and more rarely than
            // volumes are mounted again.
            if object.optional && was_missing(index) && cache.is_awaited(key) {
                return Some(Ok(fetched(object, &plan.caller, None)));
            }
            let cached = cache.peek(&plan.caller, key, *max_age)?;
            Some(Ok(fetched(object, &plan.caller, Some(cached))))
        })
        .collect();
    let missing: Vec<usize> = (0..results.len())
        .filter(|i| results[*i].is_none())
        .collect();
    let mut fetches = stream::iter(missing.into_iter().map(|index| async move {
        (
            index,
            fetch_object(plan, index, max_ages[index], cache).await,
        )
    }))
    .buffer_unordered(MAX_CONCURRENT);
    while let Some((index, result)) = fetches.next().await {
        results[index] = Some(result);
    }
    let mut objects = Vec::with_capacity(results.len());
    let mut failures = Vec::new();
    for result in results.into_iter().flatten() {
        match result {
            Ok(object) => objects.push(object),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(objects)
    } else {
        Err(MountError::of_objects(&failures))
    }
}

async fn fetch_object(
    plan: &FetchPlan,
    index: usize,
    max_age: Option<Duration>,
    cache: &SecretCache,
) -> Result<FetchedObject, ObjectError> {
    let object = &plan.objects[index];
    let field = match object.selector {
        VersionSelector::Stage(_) => "stage",
        VersionSelector::Latest | VersionSelector::Version(_) => "objectVersion",
    };
    let key = &plan.keys[index];
    let last_good = cache.last_good(&plan.caller, key).await;
    let wait = Wait {
        deadline: plan.deadline,
        patience: last_good.as_ref().map(|_| STALE_FALLBACK_AFTER),
    };
    let last_good = match last_good {
        Some(last) if last.known_outage => {
            return Ok(fetch_in_outage(plan, object, last, max_age, wait, cache).await);
        }
        last => last,
    };
    let error = match fetch_with_failover(plan, index, max_age, wait, cache).await {
        Ok(object) => return Ok(object),
        Err(error) => error,
    };
    // This process had no room for the call, so that nothing is known about the cloud. What the leader has
    // confirmed is good enough; anything else would be an old value without an outage.
    if error.kind == ErrorKind::RateLimited {
        return match cache.confirmed(key, plan.interval) {
            Some(version) => Ok(fetched(object, &plan.caller, Some(version))),
            None => Err(ObjectError::from_api(&object.name, field, &error)),
        };
    }
    if object.optional && !error.is_definitive() && cache.is_gone(key, ANY_INTERVAL) {
        return Ok(fetched(object, &plan.caller, None));
    }
    if !error.is_definitive() {
        let primary = last_good.map(|last| (&plan.caller, last));
        let known = primary
            .into_iter()
            .chain(last_of_failover(plan, object, cache).await);
        if let Some((caller, last)) = known.min_by_key(|(_, last)| last.age) {
            return Ok(serve_stale(object, caller, &last, Some(error), cache));
        }
    }
    if object.optional && error.kind == ErrorKind::NotFound {
        // A file goes only after a second answer.
        return Ok(match cache.last_good(&plan.caller, key).await {
            Some(last) => serve_stale(object, &plan.caller, &last, Some(error), cache),
            None => fetched(object, &plan.caller, None),
        });
    }
    Err(ObjectError::from_api(&object.name, field, &error))
}

/// Fetches from the primary region, or during an outage of it from the failover region.
async fn fetch_with_failover(
    plan: &FetchPlan,
    index: usize,
    max_age: Option<Duration>,
    wait: Wait,
    cache: &SecretCache,
) -> Result<FetchedObject, ApiError> {
    let object = &plan.objects[index];
    let primary = match plan.failover {
        Some(_) => wait.share(PRIMARY_SHARE),
        None => wait,
    };
    let key = plan.keys[index].clone();
    let error = match primary.get(cache, &plan.caller, key, max_age).await {
        Ok(version) => return Ok(fetched(object, &plan.caller, Some(version))),
        Err(error) => error,
    };
    let Some(failover) = plan.failover.as_ref().filter(|_| error.kind.is_outage()) else {
        return Err(error);
    };
    let rest = Wait {
        patience: wait.share(1.0 - PRIMARY_SHARE).patience,
        ..wait
    };
    match fetch_from(failover, object, max_age, rest, cache).await {
        Ok(object) => Ok(object),
        // The failure of the primary region determines the kind; both are reported.
        Err(second) => Err(error.and(&format!("failoverRegion: {second}"))),
    }
}

async fn fetch_from(
    caller: &Arc<Caller>,
    object: &Arc<Object>,
    max_age: Option<Duration>,
    wait: Wait,
    cache: &SecretCache,
) -> Result<FetchedObject, ApiError> {
    let key = key_for(caller, object);
    let version = wait.get(cache, caller, key, max_age).await?;
    Ok(fetched(object, caller, Some(version)))
}

fn key_for(caller: &Caller, object: &Object) -> CacheKey {
    let identity = caller.credentials.identity();
    CacheKey::new(caller, &identity, &object.name, &object.selector)
}

/// In a known outage, the primary region is not asked again, but the failover region may know more than `last`.
/// What it says of the secret ends nothing that the primary region returned.
async fn fetch_in_outage(
    plan: &FetchPlan,
    object: &Arc<Object>,
    last: LastGood,
    max_age: Option<Duration>,
    wait: Wait,
    cache: &SecretCache,
) -> FetchedObject {
    let Some(failover) = &plan.failover else {
        return serve_stale(object, &plan.caller, &last, None, cache);
    };
    match fetch_from(failover, object, max_age, wait, cache).await {
        Ok(object) => object,
        Err(error) => {
            let other = last_of_failover(plan, object, cache).await;
            let newer = other.filter(|(_, other)| other.age < last.age);
            let (caller, last) = newer.unwrap_or((&plan.caller, last));
            serve_stale(object, caller, &last, Some(error), cache)
        }
    }
}

/// What the failover region returned last.
async fn last_of_failover<'a>(
    plan: &'a FetchPlan,
    object: &Object,
    cache: &SecretCache,
) -> Option<(&'a Arc<Caller>, LastGood)> {
    let failover = plan.failover.as_ref()?;
    let last = cache
        .last_good(failover, &key_for(failover, object))
        .await?;
    Some((failover, last))
}

/// Falls back to the last good version, and counts that.
fn serve_stale(
    object: &Arc<Object>,
    caller: &Arc<Caller>,
    last: &LastGood,
    error: Option<ApiError>,
    cache: &SecretCache,
) -> FetchedObject {
    cache.count_stale();
    let age = last.age;
    FetchedObject {
        stale: Some(Staleness { age, error }),
        ..fetched(object, caller, Some(Arc::clone(&last.version)))
    }
}

fn fetched(
    object: &Arc<Object>,
    caller: &Arc<Caller>,
    version: Option<Arc<CachedVersion>>,
) -> FetchedObject {
    FetchedObject {
        object: Arc::clone(object),
        caller: Arc::clone(caller),
        version,
        stale: None,
    }
}
