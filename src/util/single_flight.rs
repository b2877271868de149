//! Coalesces concurrent calls: callers that arrive while a call for the same key is in flight share its
//! result.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout_at};

type Call<T> = Shared<BoxFuture<'static, Option<T>>>;

/// Calls in flight, by key. Clones share them.
pub struct SingleFlight<K, T>(Arc<Mutex<HashMap<K, Call<T>>>>);

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightError {
    /// The deadline passed. The call continues for callers with a later deadline.
    TimedOut,
    /// The call panicked.
    Panicked,
}

impl<K, T> SingleFlight<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the call in flight for `key`, or starts `call`, and waits for it until `deadline`.
    ///
    /// The call runs in its own task, so it outlives the caller that started it. Results are not
    /// kept: a call that wants later callers to find its result stores it before it returns. The second
    /// value is `true` if the call was joined rather than started.
    pub async fn run(
        &self,
        key: K,
        deadline: Instant,
        call: impl Future<Output = T> + Send + 'static,
    ) -> (Result<T, FlightError>, bool) {
        let (shared, joined) = {
            let mut current = self.lock();
            match current.get(&key) {
                Some(shared) => (shared.clone(), true),
                None => {
                    let calls = self.clone();
                    let started = key.clone();
                    let task = tokio::spawn(async move {
                        let result = AssertUnwindSafe(call).catch_unwind().await.ok();
                        calls.lock().remove(&started);
                        result
                    });
                    let shared = task.map(|joined| joined.ok().flatten()).boxed().shared();
                    current.insert(key, shared.clone());
                    (shared, false)
                }
            }
        };
        let result = match timeout_at(deadline, shared).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(FlightError::Panicked),
            Err(_) => Err(FlightError::TimedOut),
        };
        (result, joined)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Call<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Clone for SingleFlight<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

/// A value that is fetched when it is first needed, and again once it is no longer good. Concurrent
/// callers share one fetch.
pub struct CachedFetch<T, E> {
    value: Arc<Mutex<Option<T>>>,
    flight: SingleFlight<(), Result<T, E>>,
}

impl<T, E> CachedFetch<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// The cached value if `is_good` accepts it, else the result of `fetch`. Callers that arrive
    /// while a fetch is in flight get its result, a failure included. Failures are not cached.
    ///
    /// The fetch is boxed because a caller's future would otherwise contain it, and fetches nest.
    ///
    /// # Errors
    /// Those of `fetch`, and `lost` of [`FlightError::TimedOut`] at `deadline`.
    pub async fn get(
        &self,
        deadline: Instant,
        is_good: impl FnOnce(&T) -> bool,
        fetch: impl FnOnce() -> BoxFuture<'static, Result<T, E>>,
        lost: impl FnOnce(FlightError) -> E,
    ) -> Result<T, E> {
        if let Some(value) = self.cached().filter(is_good) {
            return Ok(value);
        }
        let (value, fetch) = (Arc::clone(&self.value), fetch());
        let call = async move {
            let fetched = fetch.await?;
            *value.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched.clone());
            Ok(fetched)
        };
        let (result, _) = self.flight.run((), deadline, call).await;
        result.unwrap_or_else(|error| Err(lost(error)))
    }

    /// The last value fetched.
    pub fn cached(&self) -> Option<T> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        value.clone()
    }
}

impl<T, E> Default for CachedFetch<T, E> {
    fn default() -> Self {
        Self {
            value: Arc::default(),
            flight: SingleFlight::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_call() {
        let flights = SingleFlight::<&str, usize>::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let deadline = Instant::now() + Duration::from_secs(9);
        let ask = |flights: SingleFlight<_, _>, calls: Arc<AtomicUsize>| async move {
            let call = async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                calls.fetch_add(1, Ordering::SeqCst)
            };
            flights.run("key", deadline, call).await.0
        };
        let asked =
            futures::future::join_all((0..100).map(|_| ask(flights.clone(), Arc::clone(&calls))));
        assert!(asked.await.iter().all(|answer| *answer == Ok(0)));
        assert_eq!(ask(flights, Arc::clone(&calls)).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_outlives_the_caller_that_started_it() {
        let flights = SingleFlight::<u8, u8>::default();
        let now = Instant::now();
        let call = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            7
        };
        let (first, _) = flights.run(1, now + Duration::from_secs(1), call).await;
        assert_eq!(first, Err(FlightError::TimedOut));
        let (second, joined) = flights
            .run(1, now + Duration::from_secs(9), async { 8 })
            .await;
        assert_eq!((second, joined), (Ok(7), true));
    }

    #[tokio::test]
    async fn a_panic_is_reported_and_the_next_call_starts_afresh() {
        let flights = SingleFlight::<u8, u8>::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let (lost, _) = flights
            .run(1, deadline, async { panic!("in a test") })
            .await;
        assert_eq!(lost, Err(FlightError::Panicked));
        assert_eq!(flights.run(1, deadline, async { 8 }).await.0, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_fetches_share_the_outcome_and_failures_are_not_cached() {
        #[derive(Clone, Debug, PartialEq)]
        struct Failed;
        let value = CachedFetch::<u32, Failed>::default();
        let fetches = Arc::new(AtomicUsize::new(0));
        let get = |result: Result<u32, Failed>| {
            let fetches = Arc::clone(&fetches);
            let deadline = Instant::now() + Duration::from_secs(60);
            let fetch = async move {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                result
            };
            value.get(deadline, |_| true, || fetch.boxed(), |_| Failed)
        };
        let both = tokio::join!(get(Err(Failed)), get(Ok(1)));
        assert_eq!((both.0.is_err(), both.1.is_err()), (true, true));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);

        let both = tokio::join!(get(Ok(7)), get(Ok(8)));
        assert_eq!(both, (Ok(7), Ok(7)));
        assert_eq!(get(Ok(9)).await, Ok(7));
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }
}
