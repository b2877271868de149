//! Client-side rate limit of calls to the cloud, shared out fairly between tenants.
//!
//! A tenant is a namespace, or whatever else the callers keep apart. Two rules keep one tenant from
//! delaying the others, however much it asks for:
//!
//! - Of the calls that wait, the next one is that of the tenant that had the fewest calls lately.
//! - Half of the burst is a reserve that only tenants may draw on that had less than a burst lately. It
//!   refills from half of the rate.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Share of the rate that refills the reserve while it is not full.
const RESERVE_RATE: f64 = 0.5;
/// Share of the burst that is the reserve.
const RESERVE_SIZE: f64 = 0.5;
/// The time after which a call counts half in what a tenant had lately.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// A tenant that had less than this lately had nothing.
const NEGLIGIBLE: f64 = 0.01;
/// A token; sums of fractions may stay just below it.
const WHOLE: f64 = 1.0 - 1e-6;
/// Tenants that are remembered of one call.
const MAX_TENANTS: usize = 64;

/// The tenants for whom a call is made. Each of them lends it its turn, so that a call that one tenant
/// started waits no longer than the others would have to. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<TurnState>);

#[derive(Debug, Default)]
struct TurnState {
    tenants: Mutex<BTreeSet<Arc<str>>>,
    admitted: watch::Sender<bool>,
}

impl Turn {
    /// The turn of one tenant.
    pub fn of(tenant: &str) -> Self {
        let turn = Self::default();
        turn.tenants().insert(Arc::from(tenant));
        turn
    }

    /// Adds the tenants of another turn.
    pub fn join(&self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) {
            return;
        }
        let others = other.tenants().clone();
        let mut tenants = self.tenants();
        let room = MAX_TENANTS.saturating_sub(tenants.len());
        let new: Vec<_> = others.difference(&tenants).take(room).cloned().collect();
        tenants.extend(new);
    }

    /// The names of the tenants.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.tenants_that(|_| true)
    }

    /// Those of its tenants for whom `is_wanted` holds.
    pub fn tenants_that(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let tenants = self.tenants();
        let wanted = tenants.iter().filter(|tenant| is_wanted(tenant));
        wanted.cloned().collect()
    }

    /// Waits until the rate limit has admitted a call with this turn.
    pub async fn admitted(&self) {
        // The sender lives as long as this turn.
        let _ = self
            .0
            .admitted
            .subscribe()
            .wait_for(|admitted| *admitted)
            .await;
    }

    /// Whether a call still has it.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    fn note_admission(&self) {
        self.0.admitted.send_replace(true);
    }

    fn tenants(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.0
            .tenants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits.
struct Waiter {
    turn: Turn,
    /// Woken when the call is admitted.
    admitted: Arc<Notify>,
    id: u64,
}

/// Tokens, and who waits for them.
struct Bucket {
    qps: f64,
    burst: f64,
    /// Tokens for everyone.
    shared: f64,
    /// Tokens for tenants that had few calls lately.
    reserve: f64,
    /// When the tokens and `recent` were brought up to date.
    updated: Instant,
    /// Calls that each tenant had lately, decaying with [`HALF_LIFE`].
    recent: HashMap<Arc<str>, f64>,
    /// In the order of arrival.
    waiting: Vec<Waiter>,
    next_id: u64,
}

impl Bucket {
    fn reserve_size(&self) -> f64 {
        (self.burst * RESERVE_SIZE).floor()
    }

    fn update(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated);
        if elapsed.is_zero() {
            return;
        }
        self.updated = now;
        let earned = elapsed.as_secs_f64() * self.qps;
        let missing = self.reserve_size() - self.reserve;
        let reserved = missing.min(earned * RESERVE_RATE);
        self.reserve += reserved;
        let limit = self.burst - self.reserve_size();
        self.shared = limit.min(self.shared + earned - reserved);
        let decay = 0.5_f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.recent.retain(|_, calls| {
            *calls *= decay;
            *calls >= NEGLIGIBLE
        });
    }

    /// The tenant of a turn that had the fewest calls lately, and how many. Calls without a tenant count
    /// for one of their own.
    fn lightest(&self, turn: &Turn) -> (Arc<str>, f64) {
        let recent = |tenant: &str| self.recent.get(tenant).copied().unwrap_or(0.0);
        let tenants = turn.tenants();
        let all = tenants.iter().map(|tenant| (tenant, recent(tenant)));
        match all.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
            Some((tenant, recent)) => (Arc::clone(tenant), recent),
            None => (Arc::from(""), recent("")),
        }
    }

    fn recent(&self, turn: &Turn) -> f64 {
        self.lightest(turn).1
    }

    fn may_use_reserve(&self, recent: f64) -> bool {
        recent + 1.0 <= self.burst
    }

    fn can_take(&self, turn: &Turn) -> bool {
        self.shared >= WHOLE || (self.reserve >= WHOLE && self.may_use_reserve(self.recent(turn)))
    }

    /// Takes a token for a call; returns whether there was one.
    fn take(&mut self, turn: &Turn) -> bool {
        if !self.can_take(turn) {
            return false;
        }
        let from = if self.shared >= WHOLE {
            &mut self.shared
        } else {
            &mut self.reserve
        };
        *from = (*from - 1.0).max(0.0);
        *self.recent.entry(self.lightest(turn).0).or_default() += 1.0;
        true
    }

    /// Admits waiting calls while there are tokens.
    fn admit(&mut self) {
        while let Some(next) = self.next() {
            let turn = self.waiting[next].turn.clone();
            if !self.take(&turn) {
                return;
            }
            self.waiting.remove(next).admitted.notify_one();
            turn.note_admission();
        }
    }

    /// The waiting call whose tenant had the fewest calls lately; of several, the first that came.
    fn next(&self) -> Option<usize> {
        let order = |(_, a): &(usize, f64), (_, b): &(usize, f64)| a.total_cmp(b);
        let recent = |(index, waiter): (usize, &Waiter)| (index, self.recent(&waiter.turn));
        let waiting = self.waiting.iter().enumerate().map(recent);
        waiting.min_by(order).map(|(index, _)| index)
    }

    /// The time until a call of this turn could be admitted if no other call waited.
    fn earliest(&self, turn: &Turn) -> Duration {
        let filling = self.reserve < self.reserve_size();
        let rate = if filling { 1.0 - RESERVE_RATE } else { 1.0 };
        let mut wait = (1.0 - self.shared) / (self.qps * rate);
        if filling && self.may_use_reserve(self.recent(turn)) {
            wait = wait.min((1.0 - self.reserve) / (self.qps * RESERVE_RATE));
        }
        Duration::from_secs_f64(wait.max(0.0)).max(Duration::from_micros(1))
    }
}

/// Admits calls at a rate, after a burst.
pub(super) struct RateLimiter {
    bucket: Mutex<Bucket>,
    /// Held by the waiting call that wakes for the next token, and admits whose turn it is.
    dispatcher: tokio::sync::Mutex<()>,
    qps: NonZeroU32,
    /// The flag that sets it, for errors.
    flag: &'static str,
}

/// Removes a call that no longer waits.
struct Waiting<'a> {
    bucket: &'a Mutex<Bucket>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.waiting.retain(|waiter| waiter.id != self.id);
    }
}

impl RateLimiter {
    /// Starts with `burst` tokens and adds `qps` per second, up to `burst`.
    pub(super) fn new(qps: NonZeroU32, burst: NonZeroU32, flag: &'static str) -> Self {
        let mut bucket = Bucket {
            qps: qps.get().into(),
            burst: burst.get().into(),
            shared: 0.0,
            reserve: 0.0,
            updated: Instant::now(),
            recent: HashMap::new(),
            waiting: Vec::new(),
            next_id: 0,
        };
        bucket.reserve = bucket.reserve_size();
        bucket.shared = bucket.burst - bucket.reserve;
        Self {
            bucket: Mutex::new(bucket),
            dispatcher: tokio::sync::Mutex::new(()),
            qps,
            flag,
        }
    }

    /// Waits until a call of these tenants is admitted.
    ///
    /// # Errors
    /// If it is not admitted before `deadline`; returned at once if no token will be there by then.
    pub(super) async fn acquire(&self, turn: &Turn, deadline: Instant) -> Result<(), String> {
        let too_late = || {
            format!(
                "client-side rate limit ({}={}) reached before the deadline",
                self.flag, self.qps
            )
        };
        let admitted = Arc::new(Notify::new());
        let _waiting = {
            let mut bucket = self.lock();
            bucket.update(Instant::now());
            let id = bucket.next_id;
            bucket.next_id += 1;
            bucket.waiting.push(Waiter {
                turn: turn.clone(),
                admitted: Arc::clone(&admitted),
                id,
            });
            if bucket.can_take(turn) {
                bucket.admit();
            }
            let is_waiting = bucket.waiting.last().is_some_and(|last| last.id == id);
            if !is_waiting {
                return Ok(());
            }
            if Instant::now() + bucket.earliest(turn) > deadline {
                bucket.waiting.pop();
                return Err(too_late());
            }
            Waiting {
                bucket: &self.bucket,
                id,
            }
        };
        let dispatch = async {
            let _dispatcher = self.dispatcher.lock().await;
            loop {
                let until = {
                    let mut bucket = self.lock();
                    bucket.update(Instant::now());
                    bucket.admit();
                    let next = bucket.next();
                    next.map(|next| Instant::now() + bucket.earliest(&bucket.waiting[next].turn))
                };
                match until {
                    Some(until) => sleep_until(until).await,
                    // This call has been admitted too.
                    None => std::future::pending().await,
                }
            }
        };
        let admission = async {
            tokio::select! {
                biased;
                () = admitted.notified() => {}
                () = dispatch => {}
            }
        };
        timeout_at(deadline, admission)
            .await
            .map_err(|_| too_late())
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field(self.flag, &self.qps)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::{FuturesUnordered, StreamExt};

    use super::*;

    fn limiter(qps: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(
            NonZeroU32::new(qps).unwrap(),
            NonZeroU32::new(burst).unwrap(),
            "--csms-qps",
        )
    }

    /// Lets `tenants` ask for so many calls each at once, in this order, and returns when each tenant's last call
    /// was admitted.
    async fn last_admissions(limiter: &RateLimiter, tenants: &[(&str, usize)]) -> Vec<Duration> {
        let begin = Instant::now();
        let deadline = begin + Duration::from_secs(3600);
        let mut calls = FuturesUnordered::new();
        for (index, (tenant, count)) in tenants.iter().enumerate() {
            let turn = Turn::of(tenant);
            for _ in 0..*count {
                let turn = turn.clone();
                calls.push(async move {
                    limiter.acquire(&turn, deadline).await.unwrap();
                    index
                });
            }
        }
        let mut last = vec![Duration::ZERO; tenants.len()];
        while let Some(index) = calls.next().await {
            last[index] = begin.elapsed();
        }
        last
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_admitted_and_then_the_rate() {
        let limiter = limiter(5, 20);
        assert_eq!(
            last_admissions(&limiter, &[("a", 20)]).await,
            [Duration::ZERO]
        );
        // Half of the rate refills the reserve at first: 50 tokens for the tenant and 10 for others.
        let took = last_admissions(&limiter, &[("a", 50)]).await[0];
        assert!(
            took >= Duration::from_secs(12) && took < Duration::from_millis(12_100),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_cannot_be_admitted_in_time_fails_at_once() {
        let limiter = limiter(1, 1);
        let begin = Instant::now();
        let turn = Turn::of("a");
        limiter.acquire(&turn, begin).await.unwrap();
        let deadline = begin + Duration::from_millis(500);
        let why = limiter.acquire(&turn, deadline).await.unwrap_err();
        assert!(why.contains("(--csms-qps=1)"), "{why}");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_asks_for_much_delays_others_for_two_seconds_at_most() {
        for (hostile, others) in [(600, 1), (600, 20), (50, 20), (20, 10)] {
            let limiter = limiter(5, 20);
            let calls = [("hostile", hostile), ("honest", others)];
            let alone = last_admissions(&super::tests::limiter(5, 20), &calls[1..]).await[0];
            // At most half a minute after the hostile tenant has begun.
            let deadline = Instant::now() + Duration::from_secs(3600);
            let turn = Turn::of("hostile");
            for _ in 0..hostile.min(170) {
                limiter.acquire(&turn, deadline).await.unwrap();
            }
            let together = last_admissions(&limiter, &calls).await[1];
            assert!(
                together <= alone + Duration::from_millis(2_010),
                "{hostile} and {others}: {together:?} instead of {alone:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_that_ask_for_the_same_get_the_same() {
        let limiter = limiter(5, 20);
        let names: Vec<String> = (0..10).map(|i| format!("tenant-{i}")).collect();
        let calls: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 20)).collect();
        // The first gets the burst.
        let last = &last_admissions(&limiter, &calls).await[1..];
        let (first, last) = (last.iter().min().unwrap(), last.iter().max().unwrap());
        assert!(
            *last - *first <= Duration::from_secs(3),
            "{first:?} {last:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_another_tenant_joins_gets_that_tenants_turn() {
        let limiter = limiter(5, 20);
        let deadline = Instant::now() + Duration::from_secs(3600);
        let begin = Instant::now();
        let hostile = Turn::of("hostile");
        let shared = Turn::of("hostile");
        let mut calls = FuturesUnordered::new();
        for turn in std::iter::repeat_n(&hostile, 500).chain([&shared]) {
            let (turn, limiter) = (turn.clone(), &limiter);
            calls.push(async move {
                limiter.acquire(&turn, deadline).await.unwrap();
                Arc::strong_count(&turn.0)
            });
        }
        shared.join(&Turn::of("honest"));
        let is_shared = Arc::downgrade(&shared.0);
        drop(shared);
        while is_shared.strong_count() > 0 {
            calls.next().await.unwrap();
        }
        assert!(
            begin.elapsed() <= Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_cancelled_leave_no_trace() {
        let limiter = limiter(1, 1);
        let deadline = Instant::now() + Duration::from_secs(10);
        let turn = Turn::of("a");
        limiter.acquire(&turn, deadline).await.unwrap();
        for _ in 0..100 {
            let call = limiter.acquire(&turn, deadline);
            let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
        }
        assert!(limiter.lock().waiting.is_empty());
        limiter.acquire(&turn, deadline).await.unwrap();
    }
}
