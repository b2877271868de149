//! The background fetches of this node, by key: whether one is in flight, and how the last ones failed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::key::CacheKey;

/// The wait after the first failure; each further failure doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);

/// A series of failed fetches.
struct RefreshFailure {
    count: u32,
    tried: Instant,
    retry_at: Instant,
    since: Instant,
    cause: String,
}

#[derive(Default)]
struct RefreshState {
    in_flight: bool,
    failure: Option<RefreshFailure>,
    /// Whether Events have reported that the key could not be confirmed.
    reported: bool,
}

/// The refreshes of all keys in use.
#[derive(Default)]
pub(super) struct Refreshes(HashMap<CacheKey, RefreshState>);

impl Refreshes {
    /// Marks a fetch as in flight; returns whether it may start. It may not while another is in flight, or
    /// during the backoff after a failure, unless the secret `moved` after that failed fetch began.
    pub(super) fn begin(&mut self, key: &CacheKey, moved: Option<Instant>) -> bool {
        let now = Instant::now();
        let state = self.0.entry(key.clone()).or_default();
        let backs_off = state.failure.as_ref().is_some_and(|failure| {
            failure.retry_at > now && moved.is_none_or(|moved| moved < failure.tried)
        });
        if backs_off || state.in_flight {
            return false;
        }
        state.in_flight = true;
        true
    }

    /// Records that the fetch in flight succeeded.
    pub(super) fn succeed(&mut self, key: &CacheKey) {
        if let Some(state) = self.0.get_mut(key) {
            state.in_flight = false;
            state.failure = None;
        }
    }

    /// Records that the fetch that began at `tried` failed; the next one waits for at most `max_backoff`.
    pub(super) fn fail(
        &mut self,
        key: &CacheKey,
        tried: Instant,
        max_backoff: Duration,
        cause: String,
    ) {
        let now = Instant::now();
        let state = self.0.entry(key.clone()).or_default();
        state.in_flight = false;
        let failure = state.failure.get_or_insert(RefreshFailure {
            count: 0,
            tried,
            retry_at: now,
            since: now,
            cause: String::new(),
        });
        let backoff = FIRST_BACKOFF
            .saturating_mul(1 << failure.count.min(16))
            .min(max_backoff);
        failure.tried = tried;
        failure.retry_at = now + backoff;
        failure.count += 1;
        failure.cause = cause;
    }

    /// Forgets earlier failures, because the leader confirmed the key.
    pub(super) fn forget_failure(&mut self, key: &CacheKey) {
        if let Some(state) = self.0.get_mut(key) {
            state.failure = None;
        }
    }

    /// Since when fetches have failed, and why.
    pub(super) fn failure(&self, key: &CacheKey) -> Option<(Instant, String)> {
        let failure = self.0.get(key)?.failure.as_ref()?;
        Some((failure.since, failure.cause.clone()))
    }

    /// Marks the failure of a key as reported; returns whether it still has to be reported.
    pub(super) fn report(&mut self, key: &CacheKey) -> bool {
        let state = self.0.entry(key.clone()).or_default();
        !std::mem::replace(&mut state.reported, true)
    }

    /// Resets [`Refreshes::report`], because the key is confirmed again.
    pub(super) fn reset_report(&mut self, key: &CacheKey) {
        if let Some(state) = self.0.get_mut(key) {
            state.reported = false;
        }
    }

    /// Forgets keys that are no longer in use.
    pub(super) fn retain(&mut self, in_use: impl Fn(&CacheKey) -> bool) {
        self.0.retain(|key, state| state.in_flight || in_use(key));
    }
}
