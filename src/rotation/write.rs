//! SecretRevisions: what is written of a secret, and when it is worth a write.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::plan::{Followed, SecretId, Wanted};
use crate::cloud::ApiError;
use crate::interval::RotationPollInterval;
use crate::kube::{Condition, SecretRevision, SecretRevisionSpec, SecretRevisionStatus};
use crate::store::{Found, Word};

/// One request.
const REQUEST: Duration = Duration::from_secs(10);
/// What is fetched in a second by all nodes together after a change, on the average: nodes choose
/// their moments by chance, and the account's documented limit is 20.
const FETCHES_PER_SECOND: u32 = 10;
/// Where an interval cannot be read: somebody else wrote it.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a number of pods is good enough.
const COUNT_AFTER: Duration = Duration::from_secs(5 * 60);
const TRY_AGAIN: Duration = Duration::from_secs(5);
const CONFIRMED: &str = "Confirmed";

/// What is written of secrets, by the objects' names.
pub(super) type Written = HashMap<String, (SecretRevisionSpec, SecretRevisionStatus)>;

fn spec(id: &SecretId, followed: &Followed, interval: Duration) -> SecretRevisionSpec {
    SecretRevisionSpec {
        region: id.region.clone(),
        project: id.project.clone(),
        secret: id.secret.clone(),
        stage: followed.clone(),
        interval: format!("{}m", interval.as_secs().div_ceil(60)),
    }
}

/// The SecretRevisions of a secret: one for each that is followed.
pub(super) fn specs<'a>(
    id: &'a SecretId,
    wanted: &'a Wanted,
) -> impl Iterator<Item = (&'a Followed, SecretRevisionSpec)> {
    let followed = wanted.followed.keys();
    followed.map(|followed| (followed, spec(id, followed, wanted.interval)))
}

/// Where the secret stands, by what was written.
pub(super) fn found(status: &SecretRevisionStatus) -> Option<Found> {
    Some(Found {
        version: status.version.clone()?,
        current: status.current.clone(),
        created: status.created,
    })
}

/// What a node takes from it.
pub(super) fn word(spec: &SecretRevisionSpec, status: &SecretRevisionStatus) -> Word {
    let failing = status.ready().filter(|ready| ready.status != "True");
    Word {
        found: found(status),
        failing: failing.map(|ready| (ready.reason.clone(), ready.message.clone())),
        spread: Duration::from_secs(status.spread_seconds.unwrap_or(0).into()),
        interval: spec
            .interval
            .parse()
            .map_or(INTERVAL, RotationPollInterval::into),
    }
}

/// How long so many nodes take to fetch.
pub(super) fn fetches(nodes: u32) -> Duration {
    Duration::from_secs(1) * nodes / FETCHES_PER_SECOND
}

/// The status after a question, or `None` where there is nothing to write.
pub(super) fn next(
    old: &SecretRevisionStatus,
    answer: &Result<Found, ApiError>,
    pods: u32,
    now: &str,
) -> Option<SecretRevisionStatus> {
    let (is_ready, reason, message) = match answer {
        Ok(_) => ("True", CONFIRMED.to_owned(), String::new()),
        Err(error) => ("False", error.kind.reason(), error.to_string()),
    };
    let before = old.ready();
    let moved = matches!(answer, Ok(new) if found(old).as_ref() != Some(new));
    // The cause of a failure names the request, so it differs each time.
    let same = before.is_some_and(|b| b.status == is_ready && b.reason == reason);
    if !moved && same && !is_worth_counting(old, pods, now) {
        return None;
    }
    let since = before
        .filter(|b| b.status == is_ready)
        .map_or(now, |b| b.last_transition_time.as_str());
    let mut new = SecretRevisionStatus {
        checked: Some(now.to_owned()),
        pods: Some(pods),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: is_ready.to_owned(),
            reason,
            message,
            last_transition_time: since.to_owned(),
        }],
        ..old.clone()
    };
    if let (true, Ok(found)) = (moved, answer) {
        new.version = Some(found.version.clone());
        new.current.clone_from(&found.current);
        new.created = found.created;
        new.changed = Some(now.to_owned());
        new.spread_seconds = None;
    }
    Some(new)
}

/// Whether the number of pods is worth a write of its own: it is for people, and every write goes to
/// every node.
fn is_worth_counting(old: &SecretRevisionStatus, pods: u32, now: &str) -> bool {
    let before = old.pods.unwrap_or(0);
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let written = old.checked.as_deref().and_then(time);
    let age = written
        .zip(time(now))
        .map(|(at, now)| now.duration_since(at));
    before.abs_diff(pods) > before / 10 && age.is_none_or(|age| age.unsigned_abs() >= COUNT_AFTER)
}

/// What former leaders left.
pub(super) async fn written(client: &Client) -> Written {
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

/// Writes a status, with its object where that is missing.
///
/// # Errors
/// The API server's, for the log.
pub(super) async fn write(
    client: &Client,
    spec: &SecretRevisionSpec,
    exists: bool,
    status: &SecretRevisionStatus,
) -> Result<(), String> {
    let api: Api<SecretRevision> = Api::all(client.clone());
    let name = spec.object_name();
    if !exists {
        create(&api, &name, spec).await?;
    }
    match patch_status(&api, &name, status).await {
        Err(kube::Error::Api(error)) if error.code == 404 => {
            // Somebody deleted it.
            create(&api, &name, spec).await?;
            patch_status(&api, &name, status).await
        }
        result => result,
    }
    .map_err(|error| error.to_string())
}

/// Writes what a class's new interval changes.
pub(super) async fn write_spec(client: &Client, spec: &SecretRevisionSpec) -> Result<(), String> {
    let api: Api<SecretRevision> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"interval": spec.interval}}));
    let (name, parameters) = (spec.object_name(), PatchParams::default());
    let patched = api.patch(&name, &parameters, &patch);
    in_time(patched).await.map(drop).map_err(|e| e.to_string())
}

/// Deletes one that nobody follows any more.
pub(super) async fn remove(client: &Client, name: &str) -> Result<(), String> {
    let api: Api<SecretRevision> = Api::all(client.clone());
    let parameters = DeleteParams::default();
    match in_time(api.delete(name, &parameters)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        result => result.map(drop).map_err(|error| error.to_string()),
    }
}

async fn create(
    api: &Api<SecretRevision>,
    name: &str,
    spec: &SecretRevisionSpec,
) -> Result<(), String> {
    let object = SecretRevision::new(name, spec.clone());
    let parameters = PostParams::default();
    match in_time(api.create(&parameters, &object)).await {
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        result => result.map(drop).map_err(|error| error.to_string()),
    }
}

async fn patch_status(
    api: &Api<SecretRevision>,
    name: &str,
    status: &SecretRevisionStatus,
) -> kube::Result<()> {
    let mut value = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    // A merge leaves what is not named.
    for field in ["version", "current", "created", "changed", "spreadSeconds"] {
        if value[field].is_null() {
            value[field] = Value::Null;
        }
    }
    let patch = Patch::Merge(json!({ "status": value }));
    in_time(api.patch_status(name, &PatchParams::default(), &patch))
        .await
        .map(drop)
}

async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    timeout(REQUEST, call).await.unwrap_or_else(|_| {
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(kube::Error::Service(Box::new(late)))
    })
}
