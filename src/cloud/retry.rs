//! Whether and when a call is retried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Attempts of one call, the first included.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// Whether a failed attempt may be repeated, depending on what the service may have done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retryability {
    /// The service's response is final.
    Never,
    /// The service may have processed the request: repeat it only if it is idempotent.
    IfIdempotent,
    /// The service did not process the request.
    Always,
}

/// Maximum wait after attempt `n`, from which full jitter chooses: 200 ms × 2^(n - 1).
/// Source: DEW best practices, "retry".
pub(super) fn backoff_limit(attempts: u32) -> Duration {
    Duration::from_millis(200) * 2_u32.saturating_pow(attempts.saturating_sub(1))
}

/// Caps `Retry-After`; no call has that much time anyway.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// `Retry-After` as a wait from `now`: seconds, or an HTTP date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let wait = http_date(value)?.duration_since(now);
    // A date in the past means now.
    let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
    Some(wait.min(MAX_RETRY_AFTER))
}

/// A date as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(value: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(value.trim()).ok()
}

/// Bounds the retries of the whole client, so that an outage does not multiply the load by
/// [`MAX_ATTEMPTS`].
///
/// It starts full with 500 tokens. A retry costs 5, or 10 after a timeout or a broken connection, and
/// returns them if it succeeds; a call that succeeds at the first attempt adds 1. While it is empty, no
/// call is retried. The figures are those of the AWS SDKs' standard retry mode.
#[derive(Debug)]
pub(super) struct RetryBudget(Mutex<u32>);

impl RetryBudget {
    const FULL: u32 = 500;

    pub(super) fn new() -> Self {
        Self(Mutex::new(Self::FULL))
    }

    /// Takes the cost of a retry, or returns `None` if the budget cannot pay for it. `slow` is true after
    /// a timeout or a broken connection.
    pub(super) fn withdraw(&self, slow: bool) -> Option<u32> {
        let cost = if slow { 10 } else { 5 };
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(cost)?;
        Some(cost)
    }

    /// Credits a call that succeeded: `paid` is what its last retry cost, or 0.
    pub(super) fn deposit(&self, paid: u32) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + paid.max(1)).min(Self::FULL);
    }
}

/// One budget for each host: a region that does not respond must not keep calls to others from being retried.
#[derive(Default)]
pub(super) struct RetryBudgets(Mutex<HashMap<String, Arc<RetryBudget>>>);

impl RetryBudgets {
    /// Most hosts that are remembered. Classes choose the region, so the number has no other limit.
    const MAX_HOSTS: usize = 64;

    /// The budget of a host.
    pub(super) fn of(&self, host: &str) -> Arc<RetryBudget> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = budgets.get(host) {
            return Arc::clone(known);
        }
        if budgets.len() >= Self::MAX_HOSTS {
            budgets.clear();
        }
        let budget = Arc::new(RetryBudget::new());
        budgets.insert(host.to_owned(), Arc::clone(&budget));
        budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_200_ms() {
        let waits: Vec<_> = (1..MAX_ATTEMPTS)
            .map(|n| backoff_limit(n).as_millis())
            .collect();
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
        assert_eq!(after("18446744073709551615"), Some(MAX_RETRY_AFTER));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }

    #[test]
    fn failures_drain_the_budget_and_successes_refill_it() {
        let budget = RetryBudget::new();
        let paid = std::iter::from_fn(|| budget.withdraw(false)).count();
        assert_eq!(paid, 100);
        assert_eq!(budget.withdraw(true), None);
        for _ in 0..5 {
            budget.deposit(0);
        }
        assert_eq!(budget.withdraw(true), None);
        assert_eq!(budget.withdraw(false), Some(5));
        budget.deposit(5);
        assert_eq!(budget.withdraw(false), Some(5));
    }

    #[test]
    fn a_host_that_fails_leaves_the_budgets_of_others() {
        let budgets = RetryBudgets::default();
        while budgets.of("kms.a.example").withdraw(true).is_some() {}
        assert_eq!(budgets.of("kms.a.example").withdraw(true), None);
        assert_eq!(budgets.of("kms.b.example").withdraw(true), Some(10));
        for host in 0..1000 {
            budgets.of(&host.to_string());
        }
        assert!(budgets.0.lock().unwrap().len() <= RetryBudgets::MAX_HOSTS);
    }
}
