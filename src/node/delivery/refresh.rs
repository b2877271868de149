//! Fetches a secret that has moved, or polls one that no leader covers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use super::context::Context;
use crate::cache::{CacheKey, SyncStatus};
use crate::cloud::{Caller, ErrorKind, Turn};

/// Limit of one fetch, retries included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(45);
/// The longest wait before the next fetch after a rejection, or one interval if that is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// The same after "not found". A leader notices earlier that such a secret was created.
const MAX_MISSING_BACKOFF: Duration = Duration::from_secs(30 * 60);

/// Who uses a key.
#[derive(Clone)]
pub(super) struct KeyUse {
    pub(super) caller: Arc<Caller>,
    /// The turns of all of them.
    pub(super) turn: Turn,
    /// The shortest interval of the volumes that use it.
    pub(super) interval: Duration,
}

/// A fetch that is due.
struct DueFetch {
    /// When the secret moved, if it did: a version fetched since then is fresh enough.
    moved: Option<Instant>,
    /// The time over which nodes spread their fetches.
    spread: Duration,
}

/// Starts a refresh in the background if the key needs one. `age` is the time since it was confirmed.
pub(super) fn start_if_due(
    context: &Arc<Context>,
    key: &CacheKey,
    key_use: &KeyUse,
    sync: &SyncStatus,
    age: Option<Duration>,
) {
    let due = match sync {
        SyncStatus::Confirmed | SyncStatus::Failing { .. } => None,
        SyncStatus::Outdated { since, spread } => Some(DueFetch {
            moved: Some(*since),
            spread: context.spread.max(*spread),
        }),
        SyncStatus::NotCovered => {
            let interval = key_use.interval;
            let age = age.unwrap_or(interval);
            // Long overdue: the leader is gone, and all nodes noticed at the same moment.
            let spread = if age >= interval * 3 / 2 {
                interval
            } else {
                context.spread.min(interval / 10)
            };
            (age >= interval).then_some(DueFetch {
                moved: None,
                spread,
            })
        }
    };
    let Some(due) = due else { return };
    if context.cache.begin_refresh(key, due.moved) {
        let refresh = refresh(Arc::clone(context), key.clone(), key_use.clone(), due);
        context.spawn(refresh);
    }
}

async fn refresh(context: Arc<Context>, key: CacheKey, key_use: KeyUse, due: DueFetch) {
    let KeyUse {
        caller,
        turn,
        interval,
    } = key_use;
    let caller = Caller {
        turn,
        ..(*caller).clone()
    };
    let wait = context.jitter.up_to(due.spread);
    sleep(wait).await;
    let max_age = match due.moved {
        Some(moved) => moved.elapsed(),
        // A version that another request fetched during the wait is fresh enough.
        None => wait,
    };
    let cache = &context.cache;
    let before = cache.stamp(&key);
    let tried = Instant::now();
    let result = cache
        .get(&caller, key.clone(), Some(max_age), tried + FETCH_TIMEOUT)
        .await;
    let failed = match result {
        Ok(version) => {
            if before.is_some_and(|before| before != version.stamp()) {
                let (secret, version) = (&key.secret, &version.id);
                info!(secret, version, "fetched a new version");
                context.metrics.changes.inc();
            }
            let status = cache.status(&key, interval);
            matches!(status.sync, SyncStatus::Outdated { .. }).then(|| {
                let id = &version.id;
                let cause = format!("CSMS lists a newer version but still returns {id}");
                (interval, cause)
            })
        }
        Err(error) if error.kind.is_outage() => Some((interval, error.to_string())),
        Err(error) if error.kind == ErrorKind::NotFound => {
            Some((MAX_MISSING_BACKOFF.max(interval), error.to_string()))
        }
        Err(error) => Some((MAX_BACKOFF.max(interval), error.to_string())),
    };
    cache.end_refresh(&key, tried, failed);
    context.wake.notify_one();
}
