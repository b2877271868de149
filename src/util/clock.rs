//! Wall-clock time and randomness, injected so that tests control both.
//!
//! Durations and timeouts use [`tokio::time::Instant`], which tests pause. [`Clock`] is only for
//! timestamps that leave the process, such as those of signatures and Events.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// The current date and time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system clock.
    #[allow(clippy::disallowed_methods)] // the one place that may read it
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// A clock that reads `start` now and advances with tokio's clock, paused or not.
    #[cfg(any(test, feature = "sim"))]
    pub fn from_tokio(start: Timestamp) -> Self {
        let begin = tokio::time::Instant::now();
        Self(Arc::new(move || {
            start.checked_add(begin.elapsed()).unwrap_or(Timestamp::MAX)
        }))
    }

    /// A clock that reads what `now` returns.
    #[cfg(any(test, feature = "sim"))]
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A source of randomness for jitter and names. Clones share its state.
#[derive(Clone, Debug)]
pub struct Jitter(Arc<Mutex<fastrand::Rng>>);

impl Jitter {
    /// Seeded by the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// The same sequence in every run.
    #[cfg(any(test, feature = "sim"))]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// A duration chosen uniformly from zero to `limit`.
    pub fn up_to(&self, limit: Duration) -> Duration {
        let fraction = self.0.lock().unwrap_or_else(PoisonError::into_inner).f64();
        limit.mul_f64(fraction)
    }

    /// A random number, for names that must differ between processes.
    pub fn number(&self) -> u32 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .u32(..)
    }
}
