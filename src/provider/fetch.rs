//! Step 4, fetch: the planned objects through the store, side by side.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::error::{MountError, ObjectError};
use super::resolve::{Plan, Planned};
use crate::cloud::Caller;
use crate::cloud::error::{ApiError, Kind};
use crate::store::{Key, LastGood, Selector, Store, Version};

/// Objects of one mount that are asked for at once; the client's rate limit is below that.
const CONCURRENCY: usize = 32;
/// A leader's word that it is gone is good for as long as any interval may be.
const ANY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the cloud is waited for where a value from before may stand in.
const PATIENCE: Duration = Duration::from_secs(10);
/// Part of the time left that the first region may use where there is a second.
const PRIMARY_SHARE: f32 = 0.5;

/// A planned object with what was found.
#[derive(Debug)]
pub struct Fetched {
    /// The object.
    pub planned: Planned,
    /// As whom and where it was asked for, or would be.
    pub caller: Arc<Caller>,
    /// `None` for an optional object that does not exist.
    pub secret: Option<Arc<Version>>,
    /// Why it could not be confirmed, where it is what was fetched before an outage.
    pub stale: Option<Stale>,
}

/// A value that the cloud could not confirm.
#[derive(Debug)]
pub struct Stale {
    /// How long ago it was confirmed.
    pub age: Duration,
    /// How asking for it failed; `None` where it failed so lately that it was not asked again.
    pub error: Option<ApiError>,
}

/// Fetches all objects, each no older than its entry of `max_ages`, or tells of all that failed.
pub async fn fetch(
    plan: &Plan,
    max_ages: &[Option<Duration>],
    store: &Store,
) -> Result<Vec<Fetched>, MountError> {
    // What is at hand needs no future: repeated mounts are nothing but this.
    let mut found: Vec<Option<Result<Fetched, ObjectError>>> = (plan.keys.iter().zip(max_ages))
        .zip(&plan.objects)
        .map(|((key, max_age), planned)| {
            // What may be missing goes when the leader says that it is gone.
            if planned.object.optional && max_age.is_none() && store.is_gone(key, ANY_INTERVAL) {
                return Some(Ok(fetched(planned, &plan.caller, None)));
            }
            store
                .peek(key, *max_age)
                .map(|v| Ok(fetched(planned, &plan.caller, Some(v))))
        })
        .collect();
    let missing: Vec<usize> = (0..found.len()).filter(|i| found[*i].is_none()).collect();
    let mut calls = stream::iter(
        missing
            .into_iter()
            .map(|index| async move { (index, one(plan, index, max_ages[index], store).await) }),
    )
    .buffer_unordered(CONCURRENCY);
    while let Some((index, result)) = calls.next().await {
        found[index] = Some(result);
    }
    let mut good = Vec::with_capacity(found.len());
    let mut failures = Vec::new();
    for result in found.into_iter().flatten() {
        match result {
            Ok(fetched) => good.push(fetched),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(good)
    } else {
        Err(MountError::of_objects(&failures))
    }
}

async fn one(
    plan: &Plan,
    index: usize,
    max_age: Option<Duration>,
    store: &Store,
) -> Result<Fetched, ObjectError> {
    let planned = &plan.objects[index];
    let object = &planned.object;
    let field = match object.selector {
        Selector::Stage(_) => "stage",
        Selector::Latest | Selector::Version(_) => "objectVersion",
    };
    let key = &plan.keys[index];
    let last_good = store.last_good(&plan.caller, key).await;
    if let Some(last) = &last_good
        && last.known_outage
    {
        return Ok(stale(planned, &plan.caller, last, None, store));
    }
    let mut deadline = plan.deadline;
    if last_good.is_some() {
        deadline = deadline.min(Instant::now() + PATIENCE);
    }
    let error = match ask(plan, index, max_age, deadline, store).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if error.kind.is_outage()
        && let Some(last) = &last_good
    {
        return Ok(stale(planned, &plan.caller, last, Some(error), store));
    }
    if object.optional && error.kind == Kind::NotFound {
        return Ok(fetched(planned, &plan.caller, None));
    }
    Err(ObjectError::from_api(&object.name, field, &error))
}

/// Asks the first region, and where that could not answer the second.
async fn ask(
    plan: &Plan,
    index: usize,
    max_age: Option<Duration>,
    deadline: Instant,
    store: &Store,
) -> Result<Fetched, ApiError> {
    let planned = &plan.objects[index];
    let left = deadline.saturating_duration_since(Instant::now());
    let first = match plan.failover {
        Some(_) => deadline - left.mul_f32(1.0 - PRIMARY_SHARE),
        None => deadline,
    };
    let key = plan.keys[index].clone();
    let error = match store.get(&plan.caller, key, max_age, first).await {
        Ok(version) => return Ok(fetched(planned, &plan.caller, Some(version))),
        Err(error) => error,
    };
    let Some(other) = plan.failover.as_ref().filter(|_| error.kind.is_outage()) else {
        return Err(error);
    };
    let object = &planned.object;
    let identity = other.credentials.identity();
    let key = Key::new(other, &identity, &object.name, &object.selector);
    match store.get(other, key, max_age, deadline).await {
        Ok(version) => Ok(fetched(planned, other, Some(version))),
        // The first one's failure decides, both are told.
        Err(second) => Err(ApiError {
            message: format!("{}; failoverRegion: {second}", error.message),
            ..error
        }),
    }
}

/// What was fetched before the outage.
fn stale(
    planned: &Planned,
    caller: &Arc<Caller>,
    last: &LastGood,
    error: Option<ApiError>,
    store: &Store,
) -> Fetched {
    store.served_stale();
    let age = last.age;
    Fetched {
        stale: Some(Stale { age, error }),
        ..fetched(planned, caller, Some(Arc::clone(&last.version)))
    }
}

fn fetched(planned: &Planned, caller: &Arc<Caller>, secret: Option<Arc<Version>>) -> Fetched {
    Fetched {
        planned: planned.clone(),
        caller: Arc::clone(caller),
        secret,
        stale: None,
    }
}
