//! Step 5, fetch: the versions of all objects, concurrently, through the cache.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::error::{MountError, ObjectError};
use super::resolve::FetchPlan;
use crate::cache::{CacheKey, CachedVersion, LastGood, SecretCache};
use crate::class::objects::Object;
use crate::cloud::{ApiError, Caller, ErrorKind, VersionSelector};
use crate::node::volumes::Delivered;

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

/// Fetches all objects, each at most as old as its entry of `max_ages` (`None` is any age).
///
/// # Errors
/// One error that lists all objects that failed.
pub(super) async fn fetch(
    plan: &FetchPlan,
    max_ages: &[Option<Duration>],
    cache: &SecretCache,
) -> Result<Vec<FetchedObject>, MountError> {
    // First what the cache has: that is all objects of most repeated mounts, and needs no future.
    let mut results: Vec<Option<Result<FetchedObject, ObjectError>>> = (plan.keys.iter())
        .zip(max_ages)
        .zip(&plan.objects)
        .map(|((key, max_age), object)| {
            // Once the leader reports that the secret is gone, an optional object has no file.
            if object.optional && max_age.is_none() && cache.is_gone(key, ANY_INTERVAL) {
                return Some(Ok(fetched(object, &plan.caller, None)));
            }
            let cached = cache.peek(key, *max_age)?;
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
    let known_outage = last_good.as_ref().is_some_and(|last| last.known_outage);
    let mut deadline = plan.deadline;
    if last_good.is_some() {
        deadline = deadline.min(Instant::now() + STALE_FALLBACK_AFTER);
    }
    // In a known outage, the primary region is not asked again, but the failover region may know more.
    let outcome = match (known_outage, &plan.failover) {
        (true, None) => None,
        (true, Some(failover)) => {
            Some(fetch_from(failover, object, max_age, deadline, cache).await)
        }
        (false, _) => Some(fetch_with_failover(plan, index, max_age, deadline, cache).await),
    };
    let error = match outcome {
        Some(Ok(object)) => return Ok(object),
        Some(Err(error)) => Some(error),
        None => None,
    };
    // What the failover region says of a secret ends nothing that the primary region returned.
    let is_final = !known_outage && error.as_ref().is_some_and(ApiError::is_definitive);
    if !is_final && let Some((caller, last)) = freshest(plan, object, last_good, cache).await {
        return Ok(serve_stale(object, caller, &last, error, cache));
    }
    let error = error.unwrap_or_else(|| {
        let why = "the region does not respond, and no earlier value may be served";
        ApiError::local("ShowSecretVersion", ErrorKind::Connect, why)
    });
    if object.optional && error.kind == ErrorKind::NotFound {
        return Ok(fetched(object, &plan.caller, None));
    }
    Err(ObjectError::from_api(&object.name, field, &error))
}

/// Fetches from the primary region, or during an outage of it from the failover region.
async fn fetch_with_failover(
    plan: &FetchPlan,
    index: usize,
    max_age: Option<Duration>,
    deadline: Instant,
    cache: &SecretCache,
) -> Result<FetchedObject, ApiError> {
    let object = &plan.objects[index];
    let left = deadline.saturating_duration_since(Instant::now());
    let primary_deadline = match plan.failover {
        Some(_) => deadline - left.mul_f32(1.0 - PRIMARY_SHARE),
        None => deadline,
    };
    let key = plan.keys[index].clone();
    let error = match cache
        .get(&plan.caller, key, max_age, primary_deadline)
        .await
    {
        Ok(version) => return Ok(fetched(object, &plan.caller, Some(version))),
        Err(error) => error,
    };
    let Some(failover) = plan.failover.as_ref().filter(|_| error.kind.is_outage()) else {
        return Err(error);
    };
    match fetch_from(failover, object, max_age, deadline, cache).await {
        Ok(object) => Ok(object),
        // The failure of the primary region determines the kind; both are reported.
        Err(second) => Err(ApiError {
            message: format!("{}; failoverRegion: {second}", error.message),
            ..error
        }),
    }
}

async fn fetch_from(
    caller: &Arc<Caller>,
    object: &Arc<Object>,
    max_age: Option<Duration>,
    deadline: Instant,
    cache: &SecretCache,
) -> Result<FetchedObject, ApiError> {
    let key = key_for(caller, object);
    let version = cache.get(caller, key, max_age, deadline).await?;
    Ok(fetched(object, caller, Some(version)))
}

fn key_for(caller: &Caller, object: &Object) -> CacheKey {
    let identity = caller.credentials.identity();
    CacheKey::new(caller, &identity, &object.name, &object.selector)
}

/// What was fetched last, from the primary or from the failover region.
async fn freshest<'a>(
    plan: &'a FetchPlan,
    object: &Object,
    primary: Option<LastGood>,
    cache: &SecretCache,
) -> Option<(&'a Arc<Caller>, LastGood)> {
    let other = match &plan.failover {
        Some(failover) => {
            let last = cache.last_good(failover, &key_for(failover, object)).await;
            last.map(|last| (failover, last))
        }
        None => None,
    };
    let primary = primary.map(|last| (&plan.caller, last));
    let known = primary.into_iter().chain(other);
    known.min_by_key(|(_, last)| last.age)
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
