//! Step 4, fetch: the planned objects through the store, side by side.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};

use super::error::{MountError, ObjectError, Reason};
use super::resolve::{Plan, Planned};
use crate::cloud::Caller;
use crate::cloud::error::{ApiError, Kind};
use crate::store::{Key, Selector, Store, Version};

/// Objects of one mount that are asked for at once; the client's rate limit is below that.
const CONCURRENCY: usize = 32;
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
    let left = plan
        .deadline
        .saturating_duration_since(tokio::time::Instant::now());
    let deadline = match plan.failover {
        Some(_) => plan.deadline - left.mul_f32(1.0 - PRIMARY_SHARE),
        None => plan.deadline,
    };
    let error = match store
        .get(&plan.caller, plan.keys[index].clone(), max_age, deadline)
        .await
    {
        Ok(version) => return Ok(fetched(planned, &plan.caller, Some(version))),
        Err(error) => error,
    };
    let error = match (&plan.failover, error.kind.is_outage()) {
        (Some(other), true) => {
            let key = Key::new(other, &object.name, &object.selector);
            match store.get(other, key, max_age, plan.deadline).await {
                Ok(version) => return Ok(fetched(planned, other, Some(version))),
                Err(second) => return Err(both(object_name(planned), field, &error, &second)),
            }
        }
        _ => error,
    };
    if object.optional && error.kind == Kind::NotFound {
        return Ok(fetched(planned, &plan.caller, None));
    }
    Err(ObjectError::from_api(object_name(planned), field, &error))
}

fn object_name(planned: &Planned) -> &str {
    &planned.object.name
}

/// Neither region answered: the first one's failure decides, both are told.
fn both(object: &str, field: &'static str, first: &ApiError, second: &ApiError) -> ObjectError {
    ObjectError {
        reason: Reason::from(first.kind),
        object: object.to_owned(),
        field,
        message: format!("{first}; failoverRegion: {second}"),
    }
}

fn fetched(planned: &Planned, caller: &Arc<Caller>, secret: Option<Arc<Version>>) -> Fetched {
    Fetched {
        planned: planned.clone(),
        caller: Arc::clone(caller),
        secret,
    }
}
