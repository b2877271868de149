//! Whether and when a call is retried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Bounds the retries of all calls to a host, so that an outage does not multiply the load by [`MAX_ATTEMPTS`].
///
/// It starts full with 500 tokens. A retry costs 5, or 10 after a timeout or a broken connection, and
/// returns them if it succeeds; a call that succeeds at the first attempt adds 1. While it is empty, no
/// call is retried. The figures are those of the AWS SDKs' standard retry mode.
///
/// A tenant, such as one whose own account is throttled, can use up half of it, and the last tokens are for
/// tenants that have used few.
#[derive(Debug)]
pub(super) struct RetryBudget(Mutex<Tokens>);

#[derive(Debug)]
struct Tokens {
    left: u32,
    /// What tenants have used, where that is something.
    used: HashMap<Arc<str>, u32>,
}

impl RetryBudget {
    const FULL: u32 = 500;
    /// Most tokens that one tenant can use.
    const SHARE: u32 = Self::FULL / 2;
    /// The last tokens, and the most that a tenant with a right to them has used.
    const RESERVE: u32 = 200;
    const FEW: u32 = 25;

    pub(super) fn new() -> Self {
        Self(Mutex::new(Tokens {
            left: Self::FULL,
            used: HashMap::new(),
        }))
    }

    /// Takes the cost of a retry, or returns `None` if the budget cannot pay for it. `slow` is true after
    /// a timeout or a broken connection. A call of several tenants may be retried if it may be for one.
    pub(super) fn withdraw(&self, tenants: &[Arc<str>], slow: bool) -> Option<u32> {
        let cost = if slow { 10 } else { 5 };
        let mut tokens = self.lock();
        let used = |tenant| tokens.used.get(tenant).copied().unwrap_or(0);
        let used = cost + tenants.iter().map(used).min().unwrap_or(0);
        let reserve = if used <= Self::FEW { 0 } else { Self::RESERVE };
        let left = tokens.left.checked_sub(cost)?;
        if used > Self::SHARE || left < reserve {
            return None;
        }
        tokens.left = left;
        for tenant in tenants {
            *tokens.used.entry(Arc::clone(tenant)).or_default() += cost;
        }
        Some(cost)
    }

    /// Credits a call that succeeded: `paid` is what its last retry cost, or 0.
    pub(super) fn deposit(&self, tenants: &[Arc<str>], paid: u32) {
        let amount = paid.max(1);
        let mut tokens = self.lock();
        tokens.left = (tokens.left + amount).min(Self::FULL);
        for tenant in tenants {
            if let Some(used) = tokens.used.get_mut(tenant) {
                *used = used.saturating_sub(amount);
                if *used == 0 {
                    tokens.used.remove(tenant);
                }
            }
        }
        if tokens.left == Self::FULL {
            tokens.used.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            // To forget a budget is to fill it: the fullest one changes least.
            let fullest = budgets.iter().max_by_key(|(_, budget)| budget.lock().left);
            if let Some(fullest) = fullest.map(|(host, _)| host.clone()) {
                budgets.remove(&fullest);
            }
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

    fn tenant(name: &str) -> [Arc<str>; 1] {
        [Arc::from(name)]
    }

    #[test]
    fn failures_drain_the_budget_and_successes_refill_it() {
        let budget = RetryBudget::new();
        // Without tenants, so without shares.
        while budget.withdraw(&[], false).is_some() {}
        assert_eq!(budget.lock().left, 0);
        for _ in 0..5 {
            budget.deposit(&[], 0);
        }
        assert_eq!(budget.withdraw(&[], true), None);
        assert_eq!(budget.withdraw(&[], false), Some(5));
        budget.deposit(&[], 5);
        assert_eq!(budget.withdraw(&[], false), Some(5));
    }

    #[test]
    fn tenants_that_fail_leave_retries_for_others() {
        let budget = RetryBudget::new();
        let drain = |name| std::iter::from_fn(|| budget.withdraw(&tenant(name), false)).count();
        assert_eq!(drain("a"), 50, "half of the budget");
        drain("b");
        for name in ["c", "d", "e"] {
            assert_eq!(drain(name), 5);
        }
        // A call for several is one of each.
        let both = [tenant("a"), tenant("f")].concat();
        assert_eq!(budget.withdraw(&both, true), Some(10));
        budget.deposit(&both, 10);
        assert_eq!(drain("f"), 5);
        // Successes give a tenant its share again.
        for _ in 0..30 {
            budget.deposit(&tenant("c"), 0);
        }
        assert_eq!(drain("c"), 5);
    }

    #[test]
    fn a_host_that_fails_leaves_the_budgets_of_others() {
        let budgets = RetryBudgets::default();
        let tenant = tenant("a");
        let spend = |host: &str| budgets.of(host).withdraw(&tenant, true);
        while spend("kms.a.example").is_some() {}
        assert_eq!(spend("kms.a.example"), None);
        assert_eq!(spend("kms.b.example"), Some(10));
        for host in 0..1000 {
            budgets.of(&host.to_string());
        }
        assert!(budgets.0.lock().unwrap().len() <= RetryBudgets::MAX_HOSTS);
        assert_eq!(spend("kms.a.example"), None, "it is remembered");
    }
}
