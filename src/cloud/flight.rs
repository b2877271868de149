//! One fetch at a time, whose outcome serves all who wait for it.

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{ApiError, Kind};

/// A value that is fetched when first needed, or again when no longer good.
pub(super) struct Flight<T, E = ApiError>(Mutex<State<T, E>>);

struct State<T, E> {
    value: Option<T>,
    failure: Option<(Instant, E)>,
}

impl<T, E> Default for Flight<T, E> {
    fn default() -> Self {
        Self(Mutex::new(State {
            value: None,
            failure: None,
        }))
    }
}

impl<T: Clone, E: Clone + From<ApiError>> Flight<T, E> {
    /// The value, where there is a good one; else what `fetch` gives. Of those who come while a
    /// fetch is under way, all get its result, the failure too. A caller that goes away leaves the
    /// fetch to the next one. Failures are not kept for those who come later.
    pub(super) async fn get(
        &self,
        operation: &'static str,
        deadline: Instant,
        good: impl FnOnce(&T) -> bool,
        fetch: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let came = Instant::now();
        let Ok(mut state) = tokio::time::timeout_at(deadline, self.0.lock()).await else {
            let text = "the time given ran out while another call was asking for the same";
            return Err(ApiError::local(operation, Kind::Timeout, text).into());
        };
        if let Some(value) = state.value.as_ref().filter(|value| good(value)) {
            return Ok(value.clone());
        }
        if let Some((at, failure)) = &state.failure
            && *at > came
        {
            return Err(failure.clone());
        }
        match fetch().await {
            Ok(value) => {
                state.value = Some(value.clone());
                Ok(value)
            }
            Err(failure) => {
                state.failure = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    async fn ask(
        flight: &Flight<u32>,
        asked: &AtomicU32,
        result: Result<u32, ApiError>,
    ) -> Result<u32, ApiError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        flight
            .get(
                "T",
                deadline,
                |_| true,
                async || {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    result
                },
            )
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_the_outcome_and_failures_are_not_kept() {
        let flight = Flight::default();
        let asked = AtomicU32::new(0);
        let failure = || Err(ApiError::local("T", Kind::Connect, "no"));

        let both = tokio::join!(ask(&flight, &asked, failure()), ask(&flight, &asked, Ok(1)));
        assert_eq!((both.0.is_err(), both.1.is_err()), (true, true));
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        let both = tokio::join!(ask(&flight, &asked, Ok(7)), ask(&flight, &asked, Ok(8)));
        assert_eq!(both, (Ok(7), Ok(7)));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
