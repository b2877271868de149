//! Whether and when a call is tried again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Tries of one call, the first included.
pub(super) const TRIES: u32 = 5;

/// What a failed attempt may have done, which decides whether it may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The service answered for good.
    Never,
    /// The request may have been carried out: only where doing it twice is as doing it once.
    IfIdempotent,
    /// The request was not carried out.
    Always,
}

/// The longest wait before try `n + 1`, of which jitter takes any part: 200 ms × 2^(n - 1)
/// (DEW best practices, "retry").
pub(super) fn backoff_limit(tries: u32) -> Duration {
    Duration::from_millis(200) * 2_u32.saturating_pow(tries.saturating_sub(1))
}

/// Longer waits are as good as this one: no call has so much time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// `Retry-After` as a wait from `now`: seconds, or an HTTP date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let wait = http_date(value)?.duration_since(now);
    // a date that has passed means now
    let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
    Some(wait.min(LONGEST))
}

/// A date as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value.trim()).ok()
}

/// A budget of retries for the whole client, so that an outage is not answered with five times
/// the load.
///
/// It starts full with 500 tokens. A retry takes 5, or 10 after a time-out or a broken connection,
/// and gives them back if it succeeds; a call that succeeds at once gives 1. Empty, it lets no call
/// be retried until others succeed.
#[derive(Debug)]
pub(super) struct Budget(Mutex<u32>);

impl Budget {
    const FULL: u32 = 500;

    pub(super) fn new() -> Self {
        Self(Mutex::new(Self::FULL))
    }

    /// What the retry costs, or `None` where the budget cannot pay for it.
    pub(super) fn take(&self, slow: bool) -> Option<u32> {
        let cost = if slow { 10 } else { 5 };
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(cost)?;
        Some(cost)
    }

    /// After a success: `paid` for its last retry, or 0.
    pub(super) fn give_back(&self, paid: u32) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + paid.max(1)).min(Self::FULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_200_ms() {
        let waits: Vec<_> = (1..TRIES).map(|n| backoff_limit(n).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(now.to_string(), "1994-11-06T08:49:37Z");
        let after = |value| retry_after(value, now);
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:50:07 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("18446744073709551615"), Some(LONGEST));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_outage_empties_the_budget_and_success_refills_it() {
        let budget = Budget::new();
        let paid = std::iter::from_fn(|| budget.take(false)).count();
        assert_eq!(paid, 100);
        assert_eq!(budget.take(true), None);
        for _ in 0..5 {
            budget.give_back(0);
        }
        assert_eq!(budget.take(true), None);
        assert_eq!(budget.take(false), Some(5));
        budget.give_back(5);
        assert_eq!(budget.take(false), Some(5));
    }
}
