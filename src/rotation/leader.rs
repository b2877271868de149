//! The leader: asks for each secret once an interval, for all nodes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::ask::{self, Way};
use super::plan::{Followed, Planner, SecretId, Wanted};
use super::{Parts, write};
use crate::cloud::Cloud;
use crate::kube::{Beat, SecretRevision, SecretRevisionSpec, SecretRevisionStatus, Usage};
use crate::provider::ROTATION_FAILED;

/// Questions under way at once; how many there are in a second is the client's limit.
const AT_ONCE: usize = 32;
/// One question, its retries included.
const QUESTION: Duration = Duration::from_secs(30);
/// Changes of classes and pods within this time make one new plan.
const PLAN_AFTER: Duration = Duration::from_millis(500);
/// What could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// A SecretRevision that nobody follows for this long is deleted.
const UNUSED: Duration = Duration::from_secs(10 * 60);
/// For this long a better way, that was not allowed, is not tried again.
const WAY_LASTS: Duration = Duration::from_secs(60 * 60);
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// A secret that is asked for.
struct Entry {
    wanted: Wanted,
    due: Instant,
    under_way: bool,
    /// Whether this leader has asked, and written what moved.
    confirmed: bool,
}

/// What is written of secrets, by the objects' names.
type Written = HashMap<String, (SecretRevisionSpec, SecretRevisionStatus)>;

/// The end of a question.
struct Done {
    id: SecretId,
    way: Way,
    /// What stands in the SecretRevisions now, where it was written.
    written: Vec<(SecretRevisionSpec, SecretRevisionStatus)>,
    /// What began to fail, for the classes' Events.
    failing: Vec<String>,
    /// Whether something could not be written.
    unwritten: bool,
}

struct Leader<'a> {
    parts: &'a Parts,
    client: Client,
    cloud: Cloud,
    beat: &'a Beat,
    usage: Usage,
    planner: Planner,
    entries: BTreeMap<SecretId, Entry>,
    written: Written,
    /// SecretRevisions that nobody follows, since when.
    unused: HashMap<String, Instant>,
    ways: HashMap<(String, Option<String>), (Way, Instant)>,
    tasks: JoinSet<Done>,
}

/// Asks until it is dropped; nothing goes on after that.
pub(super) async fn lead(parts: &Parts, client: Client, cloud: Cloud, beat: &Beat) {
    let (usage, watching) = Usage::watch(client.clone());
    let _is_leader = parts.metrics.leads();
    let work = async {
        usage.ready().await;
        parts.classes.ready().await;
        let written = written(&client).await;
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
        };
        leader.run().await;
    };
    tokio::select! {
        () = watching => {}
        () = work => {}
    }
}

/// What former leaders left.
async fn written(client: &Client) -> Written {
    let api: Api<SecretRevision> = Api::all(client.clone());
    loop {
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                let known =
                    |r: SecretRevision| (r.name_any(), (r.spec, r.status.unwrap_or_default()));
                return list.into_iter().map(known).collect();
            }
            Err(error) => {
                warn!(%error, "SecretRevisions cannot be listed; trying again");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

impl Leader<'_> {
    async fn run(mut self) {
        let (mut classes, mut pods) = (self.parts.classes.changes(), self.usage.changes());
        self.plan().await;
        let mut plan_at = Instant::now() + UNUSED;
        loop {
            self.start_due();
            let now = Instant::now();
            self.parts.metrics.behind(self.earliest(), now);
            self.beat
                .set(self.entries.values().all(|entry| entry.confirmed));
            let room = self.tasks.len() < AT_ONCE;
            let next = self.earliest().filter(|_| room).unwrap_or(plan_at);
            tokio::select! {
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.take(done),
                    Err(error) => warn!(%error, "a question ended in a panic"),
                },
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
        let names = wanted.followed.keys();
        names
            .map(|followed| write::spec(id, followed, wanted.interval).object_name())
            .any(|name| self.written.contains_key(&name))
    }

    async fn write_intervals(&mut self) {
        for (id, entry) in &self.entries {
            for followed in entry.wanted.followed.keys() {
                let spec = write::spec(id, followed, entry.wanted.interval);
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
        let used: Vec<String> = (self.entries.iter())
            .flat_map(|(id, entry)| {
                let names = entry.wanted.followed.keys();
                names.map(|f| write::spec(id, f, entry.wanted.interval).object_name())
            })
            .collect();
        let mut gone = Vec::new();
        self.unused.retain(|name, _| !used.contains(name));
        for name in self.written.keys().filter(|name| !used.contains(name)) {
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
        let wanted = entry.wanted.clone();
        let place = (id.region.clone(), id.project.clone());
        let way = match self.ways.get(&place) {
            Some((way, at)) if at.elapsed() < WAY_LASTS => *way,
            _ => Way::List,
        };
        let old = (wanted.followed.keys())
            .map(|followed| {
                let spec = write::spec(&id, followed, wanted.interval);
                let known = self.written.get(&spec.object_name());
                (
                    followed.clone(),
                    (spec, known.map(|(_, status)| status.clone())),
                )
            })
            .collect();
        let (client, cloud) = (self.client.clone(), self.cloud.clone());
        let clock = self.parts.clock.clone();
        let question = async move {
            let followed: Vec<Followed> = wanted.followed.keys().cloned().collect();
            let deadline = Instant::now() + QUESTION.min(wanted.interval);
            let (answers, way) =
                ask::ask(&cloud, &wanted.caller, &id.secret, &followed, way, deadline).await;
            let now = clock.now().to_string();
            tell(client, id, wanted, old, answers, way, now).await
        };
        self.tasks.spawn(question);
    }

    fn take(&mut self, done: Done) {
        let place = (done.id.region.clone(), done.id.project.clone());
        let known = self.ways.get(&place).map(|(way, _)| *way);
        if done.way > known.unwrap_or_default() {
            let (way, region) = (done.way, &done.id.region);
            info!(
                ?way,
                region, "the right csms:secretVersion:list is missing: asks in another way"
            );
        }
        if known != Some(done.way) {
            self.ways.insert(place, (done.way, Instant::now()));
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
        entry.due = Instant::now()
            + if done.unwritten {
                WRITE_AGAIN
            } else {
                until_next(&done.id, interval, self.parts.clock.now().as_millisecond())
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

/// Writes what moved.
async fn tell(
    client: Client,
    id: SecretId,
    wanted: Wanted,
    old: BTreeMap<Followed, (SecretRevisionSpec, Option<SecretRevisionStatus>)>,
    answers: ask::Answers,
    way: Way,
    now: String,
) -> Done {
    let mut done = Done {
        id,
        way,
        written: Vec::new(),
        failing: Vec::new(),
        unwritten: false,
    };
    for (followed, answer) in answers {
        let Some((spec, known)) = old.get(&followed) else {
            continue;
        };
        let pods = wanted.followed.get(&followed).copied().unwrap_or(0);
        let before = known.clone().unwrap_or_default();
        let Some(status) = write::next(&before, &answer, pods, wanted.nodes, &now) else {
            continue;
        };
        let (secret, version) = (&spec.secret, &status.version);
        match (&answer, &before.version) {
            (Ok(_), Some(old)) if Some(old) != version.as_ref() => {
                info!(secret, old, version, "moved");
            }
            (Ok(_), None) => info!(secret, version, "is looked after"),
            (Ok(_), Some(_)) => debug!(secret, version, "written again"),
            (Err(error), _) if before.ready().is_some_and(|b| b.status == "False") => {
                debug!(secret, %error, "still cannot be asked for");
            }
            (Err(error), _) => {
                warn!(secret, %error, "cannot be asked for");
                done.failing.push(error.to_string());
            }
        }
        match write::write(&client, spec, known.is_some(), &status).await {
            Ok(()) => done.written.push((spec.clone(), status)),
            Err(error) => {
                warn!(error, secret, "a SecretRevision could not be written");
                done.unwritten = true;
            }
        }
    }
    done
}

/// Each secret has a place of its own in the interval, the same for every leader, so that questions
/// are spread evenly over it.
fn until_next(id: &SecretId, interval: Duration, now: i64) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let interval = (interval.as_millis() as u64).max(1);
    let place = hasher.finish() % interval;
    let earliest = (now.unsigned_abs() + interval / 2) % interval;
    Duration::from_millis(interval / 2 + (place + interval - earliest) % interval)
}
