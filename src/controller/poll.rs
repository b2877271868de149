//! One poll of the leader: calls CSMS, and publishes what moved as SecretRevisions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use ring::digest::{Context as Sha256, SHA256};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::plan::{Followed, PlannedSecret, SecretId};
use super::probe::{Resolutions, Strategy, probe};
use super::publish;
use crate::cloud::{ApiError, Csms, ErrorKind};
use crate::kube::{SecretRevisionSpec, SecretRevisionStatus};
use crate::util::clock::Clock;

/// Limit of one poll, retries included.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// The SecretRevisions of one secret; those that do not exist yet have no status.
type RevisionsOfSecret = BTreeMap<Followed, (SecretRevisionSpec, Option<SecretRevisionStatus>)>;

/// A poll of one secret.
pub(super) struct Poll {
    pub(super) client: Client,
    pub(super) csms: Csms,
    pub(super) clock: Clock,
    /// When the nodes will have fetched the versions that were published earlier.
    pub(super) fetching_until: Arc<Mutex<Instant>>,
    pub(super) id: SecretId,
    pub(super) planned: Arc<PlannedSecret>,
    pub(super) published: RevisionsOfSecret,
    pub(super) strategy: Strategy,
}

/// The result of a poll.
pub(super) struct PollOutcome {
    pub(super) id: SecretId,
    /// The strategy with which the poll started.
    pub(super) first_strategy: Strategy,
    /// The strategy that led to a result, if any did.
    pub(super) strategy: Option<Strategy>,
    /// When the poll started.
    pub(super) started: Instant,
    /// Whether the cloud responded; `None` if it was not asked.
    pub(super) answered: Option<bool>,
    /// Whether the cloud rejected everything that was asked.
    pub(super) rejected: bool,
    /// What pods followed when the poll started.
    pub(super) followed: Vec<Followed>,
    /// The SecretRevisions that were written.
    pub(super) written: Vec<(SecretRevisionSpec, SecretRevisionStatus)>,
    /// The causes of new failures, for Events about the classes.
    pub(super) failing: Vec<String>,
    /// Whether the poll has to be repeated soon: a SecretRevision could not be written, or the rate limit left no room
    /// to ask.
    pub(super) is_incomplete: bool,
}

impl Poll {
    /// Polls, and publishes what moved.
    pub(super) async fn run(self) -> PollOutcome {
        let followed: Vec<Followed> = self.planned.followed.keys().cloned().collect();
        let started = Instant::now();
        let deadline = started + POLL_TIMEOUT.min(self.planned.interval);
        let (resolutions, strategy) = probe(
            &self.csms,
            &self.planned.caller,
            &self.id.secret,
            &followed,
            self.strategy,
            deadline,
        )
        .await;
        let outcome = PollOutcome {
            id: self.id.clone(),
            first_strategy: self.strategy,
            strategy: resolutions.values().any(Result::is_ok).then_some(strategy),
            started,
            answered: resolutions.values().filter_map(is_answer).max(),
            rejected: resolutions
                .values()
                .all(|resolution| resolution.as_ref().is_err_and(ApiError::is_definitive)),
            followed,
            written: Vec::new(),
            failing: Vec::new(),
            is_incomplete: false,
        };
        let now = self.clock.now().to_string();
        self.publish(outcome, resolutions, now).await
    }

    async fn publish(
        &self,
        mut outcome: PollOutcome,
        resolutions: Resolutions,
        now: String,
    ) -> PollOutcome {
        for (followed, resolution) in resolutions {
            let Some((spec, published)) = self.published.get(&followed) else {
                continue;
            };
            let pods = self.planned.followed.get(&followed).copied().unwrap_or(0);
            // Nothing was asked.
            if resolution
                .as_ref()
                .is_err_and(|error| error.kind == ErrorKind::RateLimited)
            {
                outcome.is_incomplete = true;
                continue;
            }
            // Of a secret that was never found, nothing is published.
            if let (None, Err(error)) = (published, &resolution) {
                debug!(secret = spec.secret, %error, "secret cannot be polled yet");
                continue;
            }
            let before = published.clone().unwrap_or_default();
            let Some(mut status) = publish::next_status(&before, &resolution, pods, &now) else {
                continue;
            };
            if before.version.is_some() && status.changed != before.changed {
                status.spread_seconds = Some(self.spread_seconds());
            }
            let (secret, version) = (&spec.secret, &status.version);
            match (&resolution, &before.version) {
                (Ok(_), Some(old)) if Some(old) != version.as_ref() => {
                    info!(secret, old, version, "secret moved to another version");
                }
                (Ok(_), None) => info!(secret, version, "polling"),
                (Ok(_), Some(_)) => debug!(secret, version, "published again"),
                (Err(error), _) if before.ready().is_some_and(|b| b.status == "False") => {
                    debug!(secret, %error, "secret still cannot be polled");
                }
                (Err(error), _) => {
                    warn!(secret, %error, "secret cannot be polled");
                    outcome.failing.push(error.to_string());
                }
            }
            let exists = published.is_some();
            match publish::write(&self.client, spec, exists, &status).await {
                Ok(()) => outcome.written.push((spec.clone(), status)),
                Err(error) => {
                    warn!(error, secret, "could not write a SecretRevision");
                    outcome.is_incomplete = true;
                }
            }
        }
        outcome
    }

    /// The seconds over which the nodes spread their fetches: until the fetches of earlier versions are done,
    /// and then long enough for those of this one.
    fn spread_seconds(&self) -> u32 {
        let now = Instant::now();
        let mut until = self
            .fetching_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *until = now.max(*until) + publish::fetch_duration(self.planned.nodes);
        until.duration_since(now).as_secs_f64().ceil() as u32
    }
}

/// Whether the cloud responded; `None` if it was not asked, because the poll failed in this process.
fn is_answer<T>(resolution: &Result<T, ApiError>) -> Option<bool> {
    let Err(error) = resolution else {
        return Some(true);
    };
    match error.kind {
        kind if kind.is_outage() => Some(false),
        ErrorKind::RateLimited | ErrorKind::Credentials | ErrorKind::Configuration => None,
        // A list of versions says that none holds the stage.
        ErrorKind::NotFound => Some(true),
        _ => error.status.is_some().then_some(true),
    }
}

/// The time until the next poll. Each secret has a fixed offset in its interval, the same for every leader,
/// so that polls are spread evenly.
pub(super) fn until_next(id: &SecretId, interval: Duration, now: i64) -> Duration {
    let mut digest = Sha256::new(&SHA256);
    let project = id.project.as_deref().unwrap_or_default();
    for part in [&id.region, project, &id.secret] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finish().as_ref()[..8]);
    let interval = (interval.as_millis() as u64).max(1);
    let offset = u64::from_be_bytes(first) % interval;
    // Add 1 here and below, so that the next poll is strictly after now.
    let elapsed = (now.unsigned_abs() + 1) % interval;
    Duration::from_millis(1 + (offset + interval - elapsed) % interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cloud_answers() {
        let failed = |kind, status| {
            let mut error = ApiError::local("ListSecretVersions", kind, "why");
            error.status = status;
            is_answer::<()>(&Err(error))
        };
        assert_eq!(is_answer(&Ok(())), Some(true));
        assert_eq!(failed(ErrorKind::Denied, Some(403)), Some(true));
        assert_eq!(failed(ErrorKind::NotFound, None), Some(true));
        assert_eq!(failed(ErrorKind::Timeout, None), Some(false));
        assert_eq!(failed(ErrorKind::Server, Some(502)), Some(false));
        for kind in [
            ErrorKind::Configuration,
            ErrorKind::Credentials,
            ErrorKind::Invalid,
            ErrorKind::RateLimited,
        ] {
            assert_eq!(failed(kind, None), None, "{kind:?}");
        }
    }
}
