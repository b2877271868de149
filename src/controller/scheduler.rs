//! The leader's loop: polls each secret once per interval, for all nodes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::context::Context;
use super::election::Heartbeat;
use super::plan::{Plan, PlanInputs, PlannedSecret, Planner, SecretId};
use super::poll::{POLL_TIMEOUT, Poll, PollOutcome, until_next};
use super::probe::Strategy;
use super::publish;
use crate::cloud::{Cloud, Csms};
use crate::kube::{AllowLists, EventReason, MountCounts};

/// Polls in flight at once; the client limits their rate.
const MAX_IN_FLIGHT: usize = 32;
/// Polls in flight at once for one namespace, if they are for no other.
const MAX_IN_FLIGHT_PER_NAMESPACE: usize = MAX_IN_FLIGHT / 2;
/// A secret that was never found is polled at its interval, then at twice, four and eight times that.
const MAX_MISSING_DOUBLINGS: u32 = 3;
/// A leader that has not got the lists of ServiceAccounts after this time resigns, so that somebody notices.
const ALLOW_LISTS_READY_WITHIN: Duration = Duration::from_secs(60);
/// The wait for the next plan if a class has to wait for its namespace's turn to be parsed.
const PLAN_AGAIN: Duration = Duration::from_secs(5);
/// Changes of classes and pods within this time lead to one new plan.
const PLAN_DELAY: Duration = Duration::from_millis(500);
/// The wait before the next poll of a secret if the last one was incomplete, or panicked.
const INCOMPLETE_RETRY: Duration = Duration::from_secs(5);
/// The longest wait before a second poll says whether a secret is really gone.
const CONFIRM_AFTER: Duration = Duration::from_secs(60);
/// The leader deletes the SecretRevision of a secret that no pod has followed for this long.
const DELETE_UNUSED_AFTER: Duration = Duration::from_secs(10 * 60);
/// A poll that is late by this fraction of its interval withholds the heartbeat.
const LATE_FRACTION: u32 = 2;
/// Number of intervals without any response from the cloud after which the leader resigns: of the provider's
/// interval, or of the shortest of the classes if that is longer.
const CUT_OFF_INTERVALS: u32 = 3;
/// How long the leader keeps to a worse strategy after CSMS denied a better one.
const STRATEGY_VALID_FOR: Duration = Duration::from_secs(60 * 60);

/// The schedule of a secret.
struct ScheduledSecret {
    planned: Arc<PlannedSecret>,
    due: Instant,
    in_flight: bool,
    /// Whether the heartbeat may confirm its SecretRevisions: this leader has polled it and published what
    /// moved, or there are none yet.
    confirmed: bool,
    /// Whether it has SecretRevisions.
    is_published: bool,
    /// How often in a row it was not found or denied, if it was never found.
    missing: u32,
}

impl ScheduledSecret {
    /// The number of intervals from one poll to the next.
    fn intervals(&self) -> u32 {
        1 << self.missing.saturating_sub(1).min(MAX_MISSING_DOUBLINGS)
    }
}

struct Scheduler<'a> {
    context: &'a Context,
    csms: Csms,
    heartbeat: &'a Heartbeat,
    mounts: MountCounts,
    allow_lists: AllowLists,
    planner: Planner,
    secrets: BTreeMap<SecretId, ScheduledSecret>,
    published: publish::Published,
    /// Names of the SecretRevisions of secrets that no pod follows, and since when.
    unused: HashMap<String, Instant>,
    /// The strategies of secrets for which CSMS denied a better one, and since when.
    strategies: BTreeMap<SecretId, (Strategy, Instant)>,
    polls: JoinSet<PollOutcome>,
    /// The secret of each poll in flight.
    polled: HashMap<Id, SecretId>,
    /// When a poll was last started for each namespace.
    turns: HashMap<Arc<str>, Instant>,
    /// Since when the cloud has not responded to any poll.
    unanswered: Option<Instant>,
    /// When the last poll in each region started that has ended.
    asked: HashMap<String, Instant>,
    /// When the nodes will have fetched the versions that were published earlier.
    fetching_until: Arc<Mutex<Instant>>,
}

/// Leads until it is dropped, or until the cloud has not responded for so long that another node should try.
pub(super) async fn lead(context: &Context, cloud: Cloud, heartbeat: &Heartbeat) {
    let (mounts, watch) = MountCounts::watch(context.client.clone());
    let mode = context.config.allow_list;
    let (allow_lists, allow_list_watch) = AllowLists::watch(context.client.clone(), mode);
    let _gauge = context.metrics.lead();
    let work = async {
        mounts.ready().await;
        if timeout(ALLOW_LISTS_READY_WITHIN, allow_lists.ready())
            .await
            .is_err()
        {
            warn!(
                "the ServiceAccounts cannot be listed, so that it is unknown what pods may mount; resigning as leader \
                 (does the ClusterRole allow list and watch of serviceaccounts?)"
            );
            return;
        }
        context.classes.ready().await;
        let scheduler = Scheduler {
            context,
            csms: Csms::new(cloud),
            heartbeat,
            mounts: mounts.clone(),
            allow_lists: allow_lists.clone(),
            planner: Planner::new(),
            secrets: BTreeMap::new(),
            published: publish::list(&context.client).await,
            unused: HashMap::new(),
            strategies: BTreeMap::new(),
            polls: JoinSet::new(),
            polled: HashMap::new(),
            turns: HashMap::new(),
            unanswered: None,
            asked: HashMap::new(),
            fetching_until: Arc::new(Mutex::new(Instant::now())),
        };
        scheduler.run().await;
    };
    tokio::select! {
        () = watch => {}
        () = allow_list_watch => {}
        () = work => {}
    }
}

impl Scheduler<'_> {
    async fn run(mut self) {
        let mut classes = self.context.classes.changes();
        let mut mounts = self.mounts.changes();
        let mut allow_lists = self.allow_lists.changes();
        let mut policy = self.context.policy.changes();
        let mut deletions = self.context.deletions.clone();
        deletions.mark_unchanged();
        let mut plan_at = Instant::now() + self.plan().await;
        loop {
            self.start_due_polls();
            let now = Instant::now();
            let late = self
                .next_due()
                .map(|due| now.saturating_duration_since(due));
            let late = late.unwrap_or_default().as_secs_f64();
            self.context.metrics.behind.set(late);
            self.heartbeat.set(self.is_all_confirmed(now));
            if self.is_cut_off(now) {
                warn!("CSMS does not respond to this node; resigning as leader");
                return;
            }
            let next = self.next_start().unwrap_or(plan_at);
            tokio::select! {
                Some(done) = self.polls.join_next_with_id() => match done {
                    Ok((task, outcome)) => {
                        self.polled.remove(&task);
                        self.record(outcome);
                    }
                    Err(error) => self.poll_again_after_panic(error.id()),
                },
                _ = deletions.changed() => self.check_deleted().await,
                _ = classes.changed() => plan_at = plan_at.min(now + PLAN_DELAY),
                _ = mounts.changed() => plan_at = plan_at.min(now + PLAN_DELAY),
                _ = allow_lists.changed() => plan_at = plan_at.min(now + PLAN_DELAY),
                _ = policy.changed() => plan_at = plan_at.min(now + PLAN_DELAY),
                () = sleep_until(next.min(plan_at)) => {}
            }
            if Instant::now() >= plan_at {
                plan_at = Instant::now() + self.plan().await;
            }
        }
    }

    /// Whether the leader has polled each secret with SecretRevisions, at most half an interval late, and published what moved.
    /// With more secrets than the rate limit allows in an interval, the time that a round of polls takes
    /// counts as the interval.
    fn is_all_confirmed(&self, now: Instant) -> bool {
        let qps = self.context.config.qps.get().into();
        let round = Duration::from_secs((self.secrets.len() as u64).div_ceil(qps));
        let mut published = self.secrets.values().filter(|secret| secret.is_published);
        published.all(|secret| {
            let interval = secret.planned.interval.max(round);
            secret.confirmed && now < secret.due + interval / LATE_FRACTION + POLL_TIMEOUT
        })
    }

    /// Whether the cloud has not responded for so long that another node should lead. A region that one namespace
    /// names may be silent by itself: before that counts, every other region is asked too.
    fn is_cut_off(&mut self, now: Instant) -> bool {
        let intervals = self.secrets.values().map(|secret| secret.planned.interval);
        let (Some(since), Some(interval)) = (self.unanswered, intervals.min()) else {
            return false;
        };
        let interval = interval.max(self.context.interval);
        if now.duration_since(since) <= interval * CUT_OFF_INTERVALS {
            return false;
        }
        let mut is_cut_off = true;
        let mut last = "";
        for (id, secret) in &mut self.secrets {
            let asked = self.asked.get(&id.region);
            if id.region != last && asked.is_none_or(|asked| *asked < since) {
                secret.due = secret.due.min(now);
                is_cut_off = false;
            }
            last = &id.region;
        }
        is_cut_off
    }

    fn poll_again_after_panic(&mut self, task: Id) {
        warn!("internal error: a poll panicked; please report this bug");
        let id = self.polled.remove(&task);
        if let Some(secret) = id.and_then(|id| self.secrets.get_mut(&id)) {
            secret.in_flight = false;
            secret.confirmed = false;
            secret.due = Instant::now() + INCOMPLETE_RETRY;
        }
    }

    /// Schedules the followed secrets whose SecretRevisions were deleted, so that they are published again.
    async fn check_deleted(&mut self) {
        self.published = publish::list(&self.context.client).await;
        let now = Instant::now();
        for (id, secret) in &mut self.secrets {
            let mut specs = publish::specs(id, &secret.planned);
            if specs.any(|(_, spec)| !self.published.contains_key(&spec.object_name())) {
                secret.due = now;
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let waiting = self.secrets.values().filter(|secret| !secret.in_flight);
        waiting.map(|secret| secret.due).min()
    }

    /// Plans again, and returns the time until the next plan if nothing changes.
    async fn plan(&mut self) -> Duration {
        let context = self.context;
        let Plan {
            secrets: plan,
            invalid,
            is_incomplete,
        } = self.planner.plan(&PlanInputs {
            classes: &context.classes.all(),
            mounts: &self.mounts.by_class(),
            allow_lists: &self.allow_lists,
            policy: &context.policy.current(),
            resolver: &context.resolver,
            provider_names: &context.provider_names,
            interval: context.interval,
        });
        for invalid in invalid {
            let note = format!("pods that mounted it keep their files: {}", invalid.why);
            let class = invalid.class.event_target();
            let reason = EventReason::SecretRotationFailed;
            context.events.about_class(class, reason, note);
        }
        let now = Instant::now();
        let mut secrets = std::mem::take(&mut self.secrets);
        for (id, planned) in plan {
            let planned = Arc::new(planned);
            let secret = match secrets.remove(&id) {
                Some(known) => {
                    let same = planned.followed.keys().eq(known.planned.followed.keys());
                    let due = if same { known.due } else { now };
                    let due = due.min(now + planned.interval * known.intervals());
                    ScheduledSecret {
                        planned,
                        due,
                        ..known
                    }
                }
                None => ScheduledSecret {
                    // A heartbeat would confirm what an earlier leader published, so it waits for the first
                    // poll.
                    confirmed: false,
                    is_published: self.is_published(&id, &planned),
                    planned,
                    due: now,
                    in_flight: false,
                    missing: 0,
                },
            };
            self.secrets.insert(id, secret);
        }
        let in_use: HashSet<&Arc<str>> = (self.secrets.values())
            .flat_map(|secret| secret.planned.namespaces.keys())
            .collect();
        self.turns.retain(|namespace, _| in_use.contains(namespace));
        self.strategies
            .retain(|id, _| self.secrets.contains_key(id));
        let regions: HashSet<&String> = self.secrets.keys().map(|id| &id.region).collect();
        self.asked.retain(|region, _| regions.contains(region));
        if self.secrets.is_empty() {
            // Nothing is asked any more.
            self.unanswered = None;
        }
        context.metrics.planned.set(self.secrets.len() as i64);
        self.write_intervals().await;
        self.delete_unused().await;
        if is_incomplete {
            PLAN_AGAIN
        } else {
            DELETE_UNUSED_AFTER
        }
    }

    fn is_published(&self, id: &SecretId, planned: &PlannedSecret) -> bool {
        publish::specs(id, planned)
            .any(|(_, spec)| self.published.contains_key(&spec.object_name()))
    }

    /// Writes the intervals that the plan changed to their SecretRevisions.
    async fn write_intervals(&mut self) {
        for (id, secret) in &self.secrets {
            for (_, spec) in publish::specs(id, &secret.planned) {
                let Some((old, _)) = self.published.get_mut(&spec.object_name()) else {
                    continue;
                };
                if *old == spec {
                    continue;
                }
                match publish::write_spec(&self.context.client, &spec).await {
                    Ok(()) => *old = spec,
                    Err(error) => warn!(error, "could not write a SecretRevision"),
                }
            }
        }
    }

    async fn delete_unused(&mut self) {
        let now = Instant::now();
        let used: HashSet<String> = (self.secrets.iter())
            .flat_map(|(id, secret)| publish::specs(id, &secret.planned))
            .map(|(_, spec)| spec.object_name())
            .collect();
        let mut expired = Vec::new();
        self.unused.retain(|name, _| !used.contains(name));
        for name in self.published.keys().filter(|name| !used.contains(*name)) {
            let since = *self.unused.entry(name.clone()).or_insert(now);
            if now.duration_since(since) >= DELETE_UNUSED_AFTER {
                expired.push(name.clone());
            }
        }
        for name in expired {
            match publish::remove(&self.context.client, &name).await {
                Ok(()) => {
                    self.published.remove(&name);
                    self.unused.remove(&name);
                }
                Err(error) => warn!(error, "could not delete a SecretRevision"),
            }
        }
    }

    fn start_due_polls(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.next_poll(now) {
            self.start_poll(id);
        }
    }

    /// The next secret to poll of those that are due: the namespaces take turns.
    fn next_poll(&self, now: Instant) -> Option<SecretId> {
        let due = self.startable().filter(|(_, secret)| secret.due <= now);
        let next = due.min_by_key(|(_, secret)| {
            let namespaces = secret.planned.namespaces.keys();
            let turn = namespaces.map(|namespace| self.turns.get(namespace)).min();
            (turn.flatten(), secret.due)
        });
        next.map(|(id, _)| id.clone())
    }

    /// When the next poll can be started; `None` if that depends on the end of another one.
    fn next_start(&self) -> Option<Instant> {
        self.startable().map(|(_, secret)| secret.due).min()
    }

    /// The secrets that could be polled now.
    fn startable(&self) -> impl Iterator<Item = (&SecretId, &ScheduledSecret)> {
        let mut in_flight: HashMap<&str, usize> = HashMap::new();
        for secret in self.polled.values().filter_map(|id| self.secrets.get(id)) {
            for namespace in secret.planned.namespaces.keys() {
                *in_flight.entry(namespace).or_default() += 1;
            }
        }
        let has_room = self.polls.len() < MAX_IN_FLIGHT;
        self.secrets.iter().filter(move |(_, secret)| {
            let has_turn = |namespace: &Arc<str>| {
                let polls = in_flight.get(&**namespace);
                polls.is_none_or(|polls| *polls < MAX_IN_FLIGHT_PER_NAMESPACE)
            };
            has_room && !secret.in_flight && secret.planned.namespaces.keys().any(has_turn)
        })
    }

    fn start_poll(&mut self, id: SecretId) {
        let Some(secret) = self.secrets.get_mut(&id) else {
            return;
        };
        secret.in_flight = true;
        let now = Instant::now();
        for namespace in secret.planned.namespaces.keys() {
            self.turns.insert(Arc::clone(namespace), now);
        }
        let planned = Arc::clone(&secret.planned);
        let strategy = match self.strategies.get(&id) {
            Some((strategy, at)) if at.elapsed() < STRATEGY_VALID_FOR => *strategy,
            _ => Strategy::List,
        };
        let published = publish::specs(&id, &planned)
            .map(|(followed, spec)| {
                let known = self.published.get(&spec.object_name());
                let status = known.map(|(_, status)| status.clone());
                (followed.clone(), (spec, status))
            })
            .collect();
        let poll = Poll {
            client: self.context.client.clone(),
            csms: self.csms.clone(),
            clock: self.context.clock.clone(),
            fetching_until: Arc::clone(&self.fetching_until),
            id: id.clone(),
            planned,
            published,
            strategy,
        };
        let task = self.polls.spawn(poll.run());
        self.polled.insert(task.id(), id);
    }

    fn record(&mut self, outcome: PollOutcome) {
        let now = Instant::now();
        let region = outcome.id.region.clone();
        self.asked.insert(region, outcome.started);
        match outcome.answered {
            Some(true) => self.unanswered = None,
            Some(false) => drop(self.unanswered.get_or_insert(outcome.started)),
            None => {}
        }
        match outcome.strategy {
            Some(strategy) if strategy > outcome.first_strategy => {
                let secret = &outcome.id.secret;
                info!(
                    ?strategy,
                    secret, "csms:secretVersion:list is denied; polling with another call"
                );
                self.strategies.insert(outcome.id.clone(), (strategy, now));
            }
            Some(_) => {}
            // No strategy led to a result: the next poll starts with the best one again.
            None => drop(self.strategies.remove(&outcome.id)),
        }
        let has_written = !outcome.written.is_empty();
        for (spec, status) in outcome.written {
            self.published.insert(spec.object_name(), (spec, status));
        }
        let is_unconfirmed = self.secrets.get(&outcome.id).is_some_and(|secret| {
            publish::specs(&outcome.id, &secret.planned).any(|(_, spec)| {
                let known = self.published.get(&spec.object_name());
                known.is_some_and(|(_, status)| publish::is_unconfirmed(status))
            })
        });
        let Some(secret) = self.secrets.get_mut(&outcome.id) else {
            return;
        };
        secret.in_flight = false;
        secret.confirmed = !outcome.is_incomplete;
        secret.is_published |= has_written;
        secret.missing = if outcome.rejected && !secret.is_published {
            secret.missing + 1
        } else {
            0
        };
        let interval = secret.planned.interval;
        secret.due = now
            + if outcome.is_incomplete {
                INCOMPLETE_RETRY
            } else if !outcome.followed.iter().eq(secret.planned.followed.keys()) {
                // The plan changed during the poll.
                Duration::ZERO
            } else if is_unconfirmed {
                interval.min(CONFIRM_AFTER)
            } else {
                let now = self.context.clock.now().as_millisecond();
                until_next(&outcome.id, interval, now) + interval * (secret.intervals() - 1)
            };
        for cause in outcome.failing {
            for class in &secret.planned.classes {
                let note = format!("{:?} cannot be polled: {cause}", outcome.id.secret);
                let reason = EventReason::SecretRotationFailed;
                let events = &self.context.events;
                events.about_class(class.event_target(), reason, note);
            }
        }
    }
}
