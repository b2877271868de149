//! How many calls per second this process makes.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Tokio's time for governor, so that tests which pause it are exact.
#[derive(Clone, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A token bucket that callers pass one by one, in the order in which they came.
pub(super) struct Limit {
    bucket: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
    /// Held by whoever waits for the next token, so that the others need not wake for it.
    line: Mutex<()>,
    qps: NonZeroU32,
    /// Where it is set, for errors.
    flag: &'static str,
}

impl Limit {
    /// `burst` tokens at first, `qps` more each second, at most `burst`.
    pub(super) fn new(qps: NonZeroU32, burst: NonZeroU32, flag: &'static str) -> Self {
        let clock = TokioClock(Instant::now());
        let quota = Quota::per_second(qps).allow_burst(burst);
        Self {
            bucket: RateLimiter::direct_with_clock(quota, clock.clone()),
            clock,
            line: Mutex::new(()),
            qps,
            flag,
        }
    }

    /// Waits for a token, or says why none comes before the deadline.
    pub(super) async fn pass(&self, deadline: Instant) -> Result<(), String> {
        let too_late = || {
            format!(
                "this process's own limit of {} calls a second ({}) left no room in the time given",
                self.qps, self.flag
            )
        };
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.line.lock()).await else {
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

    fn limit(qps: u32, burst: u32) -> Limit {
        Limit::new(
            NonZeroU32::new(qps).unwrap(),
            NonZeroU32::new(burst).unwrap(),
            "--csms-qps",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_so_many_a_second() {
        let limit = limit(5, 20);
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(60);
        for _ in 0..20 {
            limit.pass(deadline).await.unwrap();
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            limit.pass(deadline).await.unwrap();
        }
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_secs(2) && took < Duration::from_millis(2_050),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_in_time_is_told_at_once() {
        let limit = limit(1, 1);
        let begin = Instant::now();
        limit.pass(begin).await.unwrap();
        let deadline = begin + Duration::from_millis(500);
        let why = limit.pass(deadline).await.unwrap_err();
        assert!(why.contains("1 calls a second"), "{why}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
