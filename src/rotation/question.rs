//! One question of the leader, from the call of the cloud to what is written of its answer.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ask::{self, Way};
use super::plan::{Followed, SecretId, Wanted};
use super::write;
use crate::clock::Clock;
use crate::cloud::{ApiError, Cloud};
use crate::kube::{SecretRevisionSpec, SecretRevisionStatus};

/// One question, its retries included.
pub(super) const QUESTION: Duration = Duration::from_secs(30);

/// What is written of what is followed, where something is.
type Old = BTreeMap<Followed, (SecretRevisionSpec, Option<SecretRevisionStatus>)>;

/// A question about a secret.
pub(super) struct Question {
    pub(super) client: Client,
    pub(super) cloud: Cloud,
    pub(super) clock: Clock,
    /// Until when the fetches of earlier changes go on.
    pub(super) fetching: Arc<Mutex<Instant>>,
    pub(super) id: SecretId,
    pub(super) wanted: Wanted,
    pub(super) old: Old,
    pub(super) began: Way,
}

/// The end of a question.
pub(super) struct Done {
    pub(super) id: SecretId,
    /// The way that was begun with, and the one that led to an answer, if any did.
    pub(super) began: Way,
    pub(super) way: Option<Way>,
    /// Whether the cloud could be reached.
    pub(super) answered: bool,
    /// What was asked for.
    pub(super) followed: Vec<Followed>,
    /// What stands in the SecretRevisions now, where it was written.
    pub(super) written: Vec<(SecretRevisionSpec, SecretRevisionStatus)>,
    /// What began to fail, for the classes' Events.
    pub(super) failing: Vec<String>,
    /// Whether something could not be written.
    pub(super) unwritten: bool,
}

impl Question {
    /// Asks, and writes what moved.
    pub(super) async fn put(self) -> Done {
        let followed: Vec<Followed> = self.wanted.followed.keys().cloned().collect();
        let deadline = Instant::now() + QUESTION.min(self.wanted.interval);
        let (answers, way) = ask::ask(
            &self.cloud,
            &self.wanted.caller,
            &self.id.secret,
            &followed,
            self.began,
            deadline,
        )
        .await;
        let is_no_outage = |answer: &Result<_, ApiError>| match answer {
            Ok(_) => true,
            Err(error) => !error.kind.is_outage(),
        };
        let done = Done {
            id: self.id.clone(),
            began: self.began,
            way: answers.values().any(Result::is_ok).then_some(way),
            answered: answers.values().any(is_no_outage),
            followed,
            written: Vec::new(),
            failing: Vec::new(),
            unwritten: false,
        };
        let now = self.clock.now().to_string();
        self.tell(done, answers, now).await
    }

    async fn tell(&self, mut done: Done, answers: ask::Answers, now: String) -> Done {
        for (followed, answer) in answers {
            let Some((spec, known)) = self.old.get(&followed) else {
                continue;
            };
            let pods = self.wanted.followed.get(&followed).copied().unwrap_or(0);
            let before = known.clone().unwrap_or_default();
            let Some(mut status) = write::next(&before, &answer, pods, &now) else {
                continue;
            };
            if before.version.is_some() && status.changed != before.changed {
                status.spread_seconds = Some(spread(&self.fetching, self.wanted.nodes));
            }
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
            match write::write(&self.client, spec, known.is_some(), &status).await {
                Ok(()) => done.written.push((spec.clone(), status)),
                Err(error) => {
                    warn!(error, secret, "a SecretRevision could not be written");
                    done.unwritten = true;
                }
            }
        }
        done
    }
}

/// Over how many seconds so many nodes fetch, after those that still fetch what moved before.
fn spread(fetching: &Mutex<Instant>, nodes: u32) -> u32 {
    let now = Instant::now();
    let mut until = fetching.lock().unwrap_or_else(PoisonError::into_inner);
    *until = now.max(*until) + write::fetches(nodes);
    until.duration_since(now).as_secs_f64().ceil() as u32
}

/// Each secret has a place of its own in the interval, the same for every leader, so that questions
/// are spread evenly over it.
pub(super) fn until_next(id: &SecretId, interval: Duration, now: i64) -> Duration {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let interval = (interval.as_millis() as u64).max(1);
    let place = hasher.finish() % interval;
    // From now on, and not now.
    let passed = (now.unsigned_abs() + 1) % interval;
    Duration::from_millis(1 + (place + interval - passed) % interval)
}
