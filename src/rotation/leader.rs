//! The leader: asks for each secret once an interval, for all nodes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::ask::Way;
use super::plan::{Planner, SecretId, Wanted};
use super::question::{Done, QUESTION, Question};
use super::{Parts, question, write};
use crate::cloud::Cloud;
use crate::kube::{Beat, Usage};
use crate::provider::ROTATION_FAILED;

/// Questions under way at once; how many there are in a second is the client's limit.
const AT_ONCE: usize = 32;
/// Changes of classes and pods within this time make one new plan.
const PLAN_AFTER: Duration = Duration::from_millis(500);
/// What could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A SecretRevision that nobody follows for this long is deleted.
const UNUSED: Duration = Duration::from_secs(10 * 60);
/// A question that is this part of its interval late takes the beat back.
const TOO_LATE: u32 = 2;
/// Intervals without any answer of the cloud, after which another node may try.
const CUT_OFF: u32 = 3;
/// For this long a better way, that was not allowed, is not tried again.
const WAY_LASTS: Duration = Duration::from_secs(60 * 60);

/// A secret that is asked for.
struct Entry {
    wanted: Wanted,
    due: Instant,
    under_way: bool,
    /// Whether this leader has asked, and written what moved.
    confirmed: bool,
}

struct Leader<'a> {
    parts: &'a Parts,
    client: Client,
    cloud: Cloud,
    beat: &'a Beat,
    usage: Usage,
    planner: Planner,
    entries: BTreeMap<SecretId, Entry>,
    written: write::Written,
    /// SecretRevisions that nobody follows, since when.
    unused: HashMap<String, Instant>,
    ways: HashMap<SecretId, (Way, Instant)>,
    tasks: JoinSet<Done>,
    running: HashMap<Id, SecretId>,
    /// Since when the cloud is asked without any answer.
    unanswered: Option<Instant>,
    /// Until when the fetches of earlier changes go on, on all nodes together.
    fetching: Arc<Mutex<Instant>>,
}

/// Asks until it is dropped, after which nothing goes on, or until the cloud does not answer for so
/// long that another node should try.
pub(super) async fn lead(parts: &Parts, client: Client, cloud: Cloud, beat: &Beat) {
    let (usage, watching) = Usage::watch(client.clone());
    let _is_leader = parts.metrics.leads();
    let work = async {
        usage.ready().await;
        parts.classes.ready().await;
        let written = write::written(&client).await;
        let leader = Leader {
            parts,
            client,
            cloud,
            beat,
            usage: usage.clone(),
            planner: Planner::default(),
            entries: BTreeMap::new(),
            written,
            unused: HashMap::new(),
            ways: HashMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            unanswered: None,
            fetching: Arc::new(Mutex::new(Instant::now())),
        };
        leader.run().await;
    };
    tokio::select! {
        () = watching => {}
        () = work => {}
    }
}

impl Leader<'_> {
    async fn run(mut self) {
        let (mut classes, mut pods) = (self.parts.classes.changes(), self.usage.changes());
        let mut deletions = self.parts.deletions.subscribe();
        self.plan().await;
        let mut plan_at = Instant::now() + UNUSED;
        loop {
            self.start_due();
            let now = Instant::now();
            self.parts.metrics.behind(self.earliest(), now);
            self.beat.set(self.is_all_confirmed(now));
            if self.is_cut_off(now) {
                warn!("CSMS does not answer this node: another one may lead");
                return;
            }
            let room = self.tasks.len() < AT_ONCE;
            let next = self.earliest().filter(|_| room).unwrap_or(plan_at);
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => match done {
                    Ok((task, done)) => {
                        self.running.remove(&task);
                        self.take(done);
                    }
                    Err(error) => self.ask_again(error.id()),
                },
                _ = deletions.changed() => self.look_for_deleted().await,
                _ = classes.changed() => plan_at = plan_at.min(now + PLAN_AFTER),
                _ = pods.changed() => plan_at = plan_at.min(now + PLAN_AFTER),
                () = sleep_until(next.min(plan_at)) => {}
            }
            if Instant::now() >= plan_at {
                self.plan().await;
                plan_at = Instant::now() + UNUSED;
            }
        }
    }

    /// Whether each secret was asked for within its interval or a little more, and what moved written.
    /// Where there are more secrets than the limit lets through, that takes as long as it takes.
    fn is_all_confirmed(&self, now: Instant) -> bool {
        let round = Duration::from_secs(
            (self.entries.len() as u64).div_ceil(self.parts.config.qps.get().into()),
        );
        self.entries.values().all(|entry| {
            let interval = entry.wanted.interval.max(round);
            entry.confirmed && now < entry.due + interval / TOO_LATE + QUESTION
        })
    }

    fn is_cut_off(&self, now: Instant) -> bool {
        let shortest = self
            .entries
            .values()
            .map(|entry| entry.wanted.interval)
            .min();
        shortest.is_some_and(|interval| {
            let since = self.unanswered.map(|since| now.duration_since(since));
            since.is_some_and(|since| since > interval * CUT_OFF)
        })
    }

    /// After a panic.
    fn ask_again(&mut self, task: Id) {
        warn!("a question ended in a panic: a bug, please report it");
        let id = self.running.remove(&task);
        if let Some(entry) = id.and_then(|id| self.entries.get_mut(&id)) {
            entry.under_way = false;
            entry.confirmed = false;
            entry.due = Instant::now() + WRITE_AGAIN;
        }
    }

    /// Somebody deleted SecretRevisions: what is followed is written anew.
    async fn look_for_deleted(&mut self) {
        self.written = write::written(&self.client).await;
        let now = Instant::now();
        for (id, entry) in &mut self.entries {
            let mut specs = write::specs(id, &entry.wanted);
            if specs.any(|(_, spec)| !self.written.contains_key(&spec.object_name())) {
                entry.due = now;
            }
        }
    }

    fn earliest(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter(|entry| !entry.under_way);
        waiting.map(|entry| entry.due).min()
    }

    async fn plan(&mut self) {
        let (plan, wrong) = self.planner.plan(
            &self.parts.classes.all(),
            &self.usage.by_class(),
            self.parts.provider.resolver(),
            &self.parts.provider_names,
            self.parts.interval,
        );
        if let Some(events) = self.parts.provider.events() {
            for wrong in wrong {
                let (namespace, name, uid) = &wrong.class;
                let text = format!("pods that have it mounted keep their files: {}", wrong.why);
                events.of_class((namespace, name, uid), ROTATION_FAILED, text);
            }
        }
        let now = Instant::now();
        let mut entries = std::mem::take(&mut self.entries);
        for (id, wanted) in plan {
            let entry = match entries.remove(&id) {
                Some(known) => {
                    let same = wanted.followed.keys().eq(known.wanted.followed.keys());
                    let due = if same { known.due } else { now };
                    let due = due.min(now + wanted.interval);
                    Entry {
                        wanted,
                        due,
                        ..known
                    }
                }
                None => Entry {
                    // Nodes trust what a former leader wrote of it, but no word of a new one.
                    confirmed: !self.knows(&id, &wanted),
                    wanted,
                    due: now,
                    under_way: false,
                },
            };
            self.entries.insert(id, entry);
        }
        self.parts.metrics.planned(self.entries.len());
        self.write_intervals().await;
        self.forget_unused().await;
    }

    fn knows(&self, id: &SecretId, wanted: &Wanted) -> bool {
        write::specs(id, wanted).any(|(_, spec)| self.written.contains_key(&spec.object_name()))
    }

    async fn write_intervals(&mut self) {
        for (id, entry) in &self.entries {
            for (_, spec) in write::specs(id, &entry.wanted) {
                let Some((old, _)) = self.written.get_mut(&spec.object_name()) else {
                    continue;
                };
                if *old == spec {
                    continue;
                }
                match write::write_spec(&self.client, &spec).await {
                    Ok(()) => *old = spec,
                    Err(error) => warn!(error, "a SecretRevision could not be written"),
                }
            }
        }
    }

    async fn forget_unused(&mut self) {
        let now = Instant::now();
        let used: HashSet<String> = (self.entries.iter())
            .flat_map(|(id, entry)| write::specs(id, &entry.wanted))
            .map(|(_, spec)| spec.object_name())
            .collect();
        let mut gone = Vec::new();
        self.unused.retain(|name, _| !used.contains(name));
        for name in self.written.keys().filter(|name| !used.contains(*name)) {
            let since = *self.unused.entry(name.clone()).or_insert(now);
            if now.duration_since(since) >= UNUSED {
                gone.push(name.clone());
            }
        }
        for name in gone {
            match write::remove(&self.client, &name).await {
                Ok(()) => {
                    self.written.remove(&name);
                    self.unused.remove(&name);
                }
                Err(error) => warn!(error, "a SecretRevision could not be deleted"),
            }
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while self.tasks.len() < AT_ONCE {
            let due = self
                .entries
                .iter()
                .filter(|(_, entry)| !entry.under_way && entry.due <= now)
                .min_by_key(|(_, entry)| entry.due)
                .map(|(id, _)| id.clone());
            let Some(id) = due else { return };
            self.start(id);
        }
    }

    fn start(&mut self, id: SecretId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.under_way = true;
        self.unanswered.get_or_insert_with(Instant::now);
        let wanted = entry.wanted.clone();
        let began = match self.ways.get(&id) {
            Some((way, at)) if at.elapsed() < WAY_LASTS => *way,
            _ => Way::List,
        };
        let old = write::specs(&id, &wanted)
            .map(|(followed, spec)| {
                let known = self.written.get(&spec.object_name());
                (
                    followed.clone(),
                    (spec, known.map(|(_, status)| status.clone())),
                )
            })
            .collect();
        let question = Question {
            client: self.client.clone(),
            cloud: self.cloud.clone(),
            clock: self.parts.clock.clone(),
            fetching: Arc::clone(&self.fetching),
            id: id.clone(),
            wanted,
            old,
            began,
        };
        let task = self.tasks.spawn(question.put());
        self.running.insert(task.id(), id);
    }

    fn take(&mut self, done: Done) {
        let now = Instant::now();
        if done.answered {
            self.unanswered = None;
        }
        match done.way {
            Some(way) if way > done.began => {
                let secret = &done.id.secret;
                info!(
                    ?way,
                    secret, "csms:secretVersion:list is not allowed: asks in another way"
                );
                self.ways.insert(done.id.clone(), (way, now));
            }
            Some(_) => {}
            // Nothing is allowed now: perhaps all is, later.
            None => drop(self.ways.remove(&done.id)),
        }
        for (spec, status) in done.written {
            self.written.insert(spec.object_name(), (spec, status));
        }
        let Some(entry) = self.entries.get_mut(&done.id) else {
            return;
        };
        entry.under_way = false;
        entry.confirmed = !done.unwritten;
        let interval = entry.wanted.interval;
        entry.due = now
            + if done.unwritten {
                WRITE_AGAIN
            } else if !done.followed.iter().eq(entry.wanted.followed.keys()) {
                // Planned while the question was under way.
                Duration::ZERO
            } else {
                question::until_next(&done.id, interval, self.parts.clock.now().as_millisecond())
            };
        if let Some(events) = self.parts.provider.events() {
            for cause in done.failing {
                for (namespace, name, uid) in &entry.wanted.classes {
                    let text = format!("{:?} cannot be asked for: {cause}", done.id.secret);
                    events.of_class((namespace, name, uid), ROTATION_FAILED, text);
                }
            }
        }
    }
}
