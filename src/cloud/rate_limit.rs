//! Client-side rate limit of calls to the cloud.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Tokio's clock for governor, so that tests that pause it are exact.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A token bucket that serves callers in the order in which they arrive.
pub(super) struct RateLimiter {
    bucket: governor::RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
    /// Held by the caller at the head of the queue; only that one wakes for the next token.
    queue: Mutex<()>,
    qps: NonZeroU32,
    /// The flag that sets it, for errors.
    flag: &'static str,
}

impl RateLimiter {
    /// Starts with `burst` tokens and adds `qps` per second, up to `burst`.
    pub(super) fn new(qps: NonZeroU32, burst: NonZeroU32, flag: &'static str) -> Self {
        let clock = TokioClock(Instant::now());
        let quota = Quota::per_second(qps).allow_burst(burst);
        Self {
            bucket: governor::RateLimiter::direct_with_clock(quota, clock.clone()),
            clock,
            queue: Mutex::new(()),
            qps,
            flag,
        }
    }

    /// Waits for a token.
    ///
    /// # Errors
    /// If none will be available before `deadline`; returned at once.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<(), String> {
        let too_late = || {
            format!(
                "client-side rate limit ({}={}) reached before the deadline",
                self.flag, self.qps
            )
        };
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.queue.lock()).await else {
            return Err(too_late());
        };
        while let Err(not_yet) = self.bucket.check() {
            let until = Instant::now() + not_yet.wait_time_from(self.clock.now());
            if until > deadline {
                return Err(too_late());
            }
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(qps: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(
            NonZeroU32::new(qps).unwrap(),
            NonZeroU32::new(burst).unwrap(),
            "--csms-qps",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_admitted_and_then_the_rate() {
        let limiter = limiter(5, 20);
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(60);
        for _ in 0..20 {
            limiter.acquire(deadline).await.unwrap();
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            limiter.acquire(deadline).await.unwrap();
        }
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(2) && took < Duration::from_millis(2_050),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_cannot_be_admitted_in_time_fails_at_once() {
        let limiter = limiter(1, 1);
        let begin = Instant::now();
        limiter.acquire(begin).await.unwrap();
        let deadline = begin + Duration::from_millis(500);
        let why = limiter.acquire(deadline).await.unwrap_err();
        assert!(why.contains("(--csms-qps=1)"), "{why}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
