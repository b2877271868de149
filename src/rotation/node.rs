//! A node: fetches what moved, asks for itself where nobody else does, and sees to it that every
//! volume gets what was fetched.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Parts;
use super::nudge::Nudger;
use crate::cloud::Caller;
use crate::kube::events::Weight;
use crate::provider::ROTATION_FAILED;
use crate::store::{Key, Selector, Standing};

/// How often everything is looked at, whether or not something happened.
const TICK: Duration = Duration::from_secs(2);
/// One fetch, its retries included.
const FETCH: Duration = Duration::from_secs(45);
/// A volume whose pod is not there is forgotten after this time: kubelet asks every 60 to 90 s for
/// those that it has (static pods have another UID there than here).
const GONE_AFTER: Duration = Duration::from_secs(5 * 60);
/// The same where pods cannot be seen, and the driver may pass on less.
const UNSEEN_GONE_AFTER: Duration = Duration::from_secs(60 * 60);
/// The first wait after a fetch that failed; it doubles.
const WAIT: Duration = Duration::from_secs(5);
/// The longest wait after a "no", or one interval where that is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// Fetches of a key that failed.
struct Trouble {
    count: u32,
    tried: Instant,
    again: Instant,
    since: Instant,
    cause: String,
}

/// What is under way for the keys in use.
#[derive(Default)]
struct State {
    /// What is in use, as of a generation of the volumes.
    used: Option<(u64, Arc<HashMap<Key, Use>>)>,
    fetching: HashSet<Key>,
    trouble: HashMap<Key, Trouble>,
    /// Whose pods were told that they cannot be confirmed.
    told: HashSet<Key>,
    /// Since when something that moved is not in all volumes.
    lagging_since: Option<Instant>,
}

impl State {
    /// Notes how a fetch failed, with the longest wait until the next, or that it did not.
    fn note(&mut self, key: Key, tried: Instant, failed: Option<(Duration, String)>) {
        let Some((longest, cause)) = failed else {
            self.trouble.remove(&key);
            return;
        };
        let now = Instant::now();
        let trouble = self.trouble.entry(key).or_insert(Trouble {
            count: 0,
            tried,
            again: now,
            since: now,
            cause: String::new(),
        });
        let wait = WAIT.saturating_mul(1 << trouble.count.min(16)).min(longest);
        trouble.tried = tried;
        trouble.again = now + wait;
        trouble.count += 1;
        trouble.cause = cause;
    }
}

/// The work of a node.
pub(super) struct Node {
    parts: Arc<Parts>,
    nudger: Option<Arc<Nudger>>,
    state: Mutex<State>,
}

/// A key in use, and by whom.
struct Use {
    caller: Arc<Caller>,
    interval: Duration,
}

impl Node {
    pub(super) fn new(parts: Arc<Parts>, nudger: Option<Arc<Nudger>>) -> Arc<Self> {
        Arc::new(Self {
            parts,
            nudger,
            state: Mutex::default(),
        })
    }

    /// Looks after everything for as long as it is polled.
    pub(super) async fn run(self: Arc<Self>) {
        let mut classes = self.parts.classes.changes();
        loop {
            self.look();
            tokio::select! {
                () = self.parts.look_again.notified() => {}
                _ = classes.changed() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    fn look(self: &Arc<Self>) {
        let now = Instant::now();
        self.prune();
        let mut oldest = Duration::ZERO;
        let (mut failing, mut moving) = (0, false);
        let used = self.used();
        for (key, of) in used.iter() {
            let store = self.parts.provider.store();
            let (standing, confirmed) = store.standing(key, of.interval);
            let age = confirmed.map(|at| now.duration_since(at));
            // As if each class had the common interval, so that one limit of an alert fits all.
            oldest = oldest
                .max((age.unwrap_or_default() + self.parts.interval).saturating_sub(of.interval));
            moving |= matches!(standing, Standing::Moved { .. });
            failing += i64::from(self.look_at(key, of, standing, age, now));
        }
        self.parts.metrics.state(oldest, failing);
        let lagging = self
            .nudger
            .as_ref()
            .is_some_and(|nudger| nudger.nudge_all(&self.parts));
        let mut state = self.state();
        if moving || lagging {
            state.lagging_since.get_or_insert(now);
        } else if let Some(since) = state.lagging_since.take() {
            self.parts.metrics.delivered(now.duration_since(since));
        }
    }

    fn prune(&self) {
        let volumes = self.parts.provider.volumes();
        match &self.nudger {
            Some(nudger) if nudger.pods().is_ready() => {
                volumes.prune(GONE_AFTER, |uid| nudger.pods().get(uid).is_some());
            }
            Some(_) => {}
            None => volumes.prune(UNSEEN_GONE_AFTER, |_| false),
        }
    }

    /// All keys that may move, each once.
    fn used(&self) -> Arc<HashMap<Key, Use>> {
        let generation = self.parts.provider.volumes().generation();
        if let Some((known, used)) = &self.state().used
            && *known == generation
        {
            return Arc::clone(used);
        }
        let used = Arc::new(self.gather());
        self.forget_unused(&used);
        self.state().used = Some((generation, Arc::clone(&used)));
        used
    }

    fn gather(&self) -> HashMap<Key, Use> {
        let mut used: HashMap<Key, Use> = HashMap::new();
        for volume in self.parts.provider.volumes().in_use() {
            for key in volume.keys.iter() {
                if matches!(key.selector, Selector::Version(_)) {
                    continue;
                }
                if let Some(known) = used.get_mut(key) {
                    known.interval = known.interval.min(volume.interval);
                    continue;
                }
                let of = Use {
                    caller: Arc::clone(&volume.caller),
                    interval: volume.interval,
                };
                used.insert(key.clone(), of);
            }
        }
        used
    }

    fn forget_unused(&self, used: &HashMap<Key, Use>) {
        let mut state = self.state();
        state.trouble.retain(|key, _| used.contains_key(key));
        state.told.retain(|key| used.contains_key(key));
    }

    /// Starts the fetch that a key needs, which was confirmed `age` ago if it ever was; returns whether
    /// it cannot be confirmed.
    fn look_at(
        self: &Arc<Self>,
        key: &Key,
        of: &Use,
        standing: Standing,
        age: Option<Duration>,
        now: Instant,
    ) -> bool {
        let config = &self.parts.config;
        let fetch = match &standing {
            Standing::Confirmed | Standing::Failing { .. } => None,
            Standing::Moved { since, spread } => Some((Some(*since), config.spread.max(*spread))),
            Standing::Own => {
                let age = age.unwrap_or(of.interval);
                // Long overdue: the leader fell silent, for all nodes at the same moment.
                let spread = if age >= of.interval * 3 / 2 {
                    of.interval
                } else {
                    config.spread.min(of.interval / 10)
                };
                (age >= of.interval).then_some((None, spread))
            }
        };
        let trouble = match standing {
            Standing::Failing { since, cause } => Some((since, cause)),
            Standing::Confirmed => {
                self.state().trouble.remove(key);
                None
            }
            Standing::Own | Standing::Moved { .. } => {
                let state = self.state();
                let trouble = state.trouble.get(key);
                trouble.map(|trouble| (trouble.since, trouble.cause.clone()))
            }
        };
        if let Some((since, spread)) = fetch {
            self.fetch(key, of, since, spread, now);
        }
        match trouble {
            Some((since, cause)) => {
                let lasts = now.duration_since(since);
                if lasts >= of.interval && self.state().told.insert(key.clone()) {
                    self.tell(key, lasts, &cause);
                }
                true
            }
            None => {
                self.state().told.remove(key);
                false
            }
        }
    }

    /// Fetches a key once, within `spread`; what was fetched since `since` is good enough.
    fn fetch(
        self: &Arc<Self>,
        key: &Key,
        of: &Use,
        since: Option<Instant>,
        spread: Duration,
        now: Instant,
    ) {
        {
            let mut state = self.state();
            // What moved since the last try is news: no waiting for it.
            let waits = |t: &Trouble| t.again > now && since.is_none_or(|since| since < t.tried);
            let waits = state.trouble.get(key).is_some_and(waits);
            if waits || !state.fetching.insert(key.clone()) {
                return;
            }
        }
        let wait = self.parts.jitter.up_to(spread);
        let (node, key, caller, interval) = (
            Arc::clone(self),
            key.clone(),
            Arc::clone(&of.caller),
            of.interval,
        );
        self.parts.spawn(async move {
            sleep(wait).await;
            let store = node.parts.provider.store();
            let age = match since {
                Some(since) => since.elapsed(),
                // What came while this one waited is as good.
                None => wait,
            };
            let before = store.held(&key);
            let tried = Instant::now();
            let result = store
                .get(&caller, key.clone(), Some(age), tried + FETCH)
                .await;
            let (standing, _) = store.standing(&key, interval);
            let mut state = node.state();
            state.fetching.remove(&key);
            let failed = match result {
                Ok(version) => {
                    if before.is_some_and(|old| old != (version.number(), version.create_time)) {
                        let (secret, version) = (&key.secret, &version.id);
                        info!(secret, version, "a new version");
                        node.parts.metrics.changed();
                    }
                    matches!(standing, Standing::Moved { .. }).then(|| {
                        let id = &version.id;
                        (
                            interval,
                            format!("CSMS lists a newer version, and still gives {id}"),
                        )
                    })
                }
                Err(error) if error.kind.is_outage() => Some((interval, error.to_string())),
                Err(error) => Some((LONGEST_WAIT.max(interval), error.to_string())),
            };
            state.note(key, tried, failed);
            drop(state);
            node.parts.look_again.notify_one();
        });
    }

    /// Tells the pods that have it. How many Events there may be is bounded.
    fn tell(&self, key: &Key, lasts: Duration, cause: &str) {
        let seconds = lasts.as_secs();
        let secret = &key.secret;
        warn!(secret, seconds, cause, "could not be confirmed");
        let Some(events) = self.parts.provider.events() else {
            return;
        };
        let volumes = self.parts.provider.volumes();
        for (id, pod) in volumes.all() {
            if volumes.get(&id).is_some_and(|v| v.keys.contains(key)) {
                let text = format!(
                    "{secret:?} could not be confirmed for {seconds} s, the volume keeps what it has: {cause}"
                );
                events.of_pod(pod.reference(), Weight::Warning, ROTATION_FAILED, text);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
