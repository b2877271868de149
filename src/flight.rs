//! One call at a time per key: whoever asks while a call is under way gets its answer.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout_at};

type Call<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The calls under way. Clones share them.
pub struct Flights<K, T>(Arc<Mutex<HashMap<K, Call<T>>>>);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The call was still under way at the deadline; it goes on for those who wait longer.
    Late,
    /// The call panicked.
    Panicked,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the call under way for `key`, or starts `call`, and waits until `deadline`.
    ///
    /// The call runs as a task of its own: that the first asker goes away neither stops it nor
    /// shortens it for the others. A result that should be found by later askers has to be kept by
    /// the call itself, before it returns. The second value tells whether the call was joined.
    pub async fn run(
        &self,
        key: K,
        deadline: Instant,
        call: impl Future<Output = T> + Send + 'static,
    ) -> (Result<T, Lost>, bool) {
        let (shared, joined) = {
            let mut current = self.lock();
            match current.get(&key) {
                Some(shared) => (shared.clone(), true),
                None => {
                    let flights = self.clone();
                    let of_task = key.clone();
                    let task = tokio::spawn(async move {
                        let result = AssertUnwindSafe(call).catch_unwind().await.ok();
                        flights.lock().remove(&of_task);
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
            Ok(None) => Err(Lost::Panicked),
            Err(_) => Err(Lost::Late),
        };
        (result, joined)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Call<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Clone for Flights<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_meanwhile_get_one_answer() {
        let flights = Flights::<&str, usize>::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let deadline = Instant::now() + Duration::from_secs(9);
        let ask = |flights: Flights<_, _>, calls: Arc<AtomicUsize>| async move {
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
    async fn the_call_outlives_who_asked_first() {
        let flights = Flights::<u8, u8>::default();
        let now = Instant::now();
        let call = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            7
        };
        let (first, _) = flights.run(1, now + Duration::from_secs(1), call).await;
        assert_eq!(first, Err(Lost::Late));
        let (second, joined) = flights
            .run(1, now + Duration::from_secs(9), async { 8 })
            .await;
        assert_eq!((second, joined), (Ok(7), true));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_too() {
        let flights = Flights::<u8, u8>::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        let (lost, _) = flights
            .run(1, deadline, async { panic!("in a test") })
            .await;
        assert_eq!(lost, Err(Lost::Panicked));
        assert_eq!(flights.run(1, deadline, async { 8 }).await.0, Ok(8));
    }
}
