//! Publishes SecretRevisions: decides what to write about a secret, and whether a write is worthwhile.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::plan::{Followed, PlannedSecret, SecretId};
use crate::cache::{NOT_FOUND_AGAIN_AFTER, ResolvedVersion};
use crate::cloud::{ApiError, ErrorKind};
use crate::kube::{
    Access, Condition, KubeError, SecretRevision, SecretRevisionSpec, SecretRevisionStatus,
};

/// Limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Fetches per second of all nodes together after a change, on average: nodes choose random times, and the
/// documented limit of an account is 20.
const FETCHES_PER_SECOND: u32 = 10;
/// Minimum time between two writes that only update the number of pods.
const COUNT_PERIOD: Duration = Duration::from_secs(5 * 60);
const RETRY_PERIOD: Duration = Duration::from_secs(5);
const CONFIRMED: &str = "Confirmed";
/// The reason after the first poll that did not find a secret whose version is known. Nodes act on the second,
/// because one such answer may be a mistake.
const NOT_FOUND_ONCE: &str = "NotFoundOnce";

/// The published SecretRevisions by name.
pub(super) type Published = HashMap<String, (SecretRevisionSpec, SecretRevisionStatus)>;

fn spec(id: &SecretId, followed: &Followed, interval: Duration) -> SecretRevisionSpec {
    SecretRevisionSpec {
        region: id.region.clone(),
        project: id.project.clone(),
        secret: id.secret.clone(),
        stage: followed.clone(),
        interval: format!("{}m", interval.as_secs().div_ceil(60)),
    }
}

/// The SecretRevisions of a secret: one for each followed version.
pub(super) fn specs<'a>(
    id: &'a SecretId,
    planned: &'a PlannedSecret,
) -> impl Iterator<Item = (&'a Followed, SecretRevisionSpec)> {
    let followed = planned.followed.keys();
    followed.map(|followed| (followed, spec(id, followed, planned.interval)))
}

/// The version in a status.
fn resolved(status: &SecretRevisionStatus) -> Option<ResolvedVersion> {
    Some(ResolvedVersion {
        version: status.version.clone()?,
        current: status.current.clone(),
        created: status.created,
    })
}

/// Whether a status says that a secret was not found, but not twice.
pub(super) fn is_unconfirmed(status: &SecretRevisionStatus) -> bool {
    let ready = status.ready();
    ready.is_some_and(|ready| ready.reason == NOT_FOUND_ONCE)
}

/// How long this many nodes take to fetch a version.
pub(super) fn fetch_duration(nodes: u32) -> Duration {
    Duration::from_secs(1) * nodes / FETCHES_PER_SECOND
}

/// The status after a poll, or `None` if there is nothing to write.
pub(super) fn next_status(
    old: &SecretRevisionStatus,
    resolution: &Result<ResolvedVersion, ApiError>,
    pods: u32,
    now: &str,
) -> Option<SecretRevisionStatus> {
    if let Err(error) = resolution
        && !is_news(old, error, now)
    {
        return None;
    }
    let (is_ready, reason, message) = match resolution {
        Ok(_) => ("True", CONFIRMED.to_owned(), String::new()),
        Err(error) if error.kind == ErrorKind::NotFound && is_first_not_found(old) => {
            ("False", NOT_FOUND_ONCE.to_owned(), error.to_string())
        }
        Err(error) => ("False", error.kind.reason(), error.to_string()),
    };
    let before = old.ready();
    let moved = matches!(resolution, Ok(new) if resolved(old).as_ref() != Some(new));
    // The message of a failure contains the request ID, so it differs each time.
    let same = before.is_some_and(|b| b.status == is_ready && b.reason == reason);
    if !moved && same && !is_count_worth_a_write(old, pods, now) {
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
    if let (true, Ok(found)) = (moved, resolution) {
        new.version = Some(found.version.clone());
        new.current.clone_from(&found.current);
        new.created = found.created;
        new.changed = Some(now.to_owned());
        new.spread_seconds = None;
    }
    Some(new)
}

/// Whether a failure changes what is published. A secret that is gone or disabled stays so until it is found,
/// and a second "not found" counts only if it is another answer.
fn is_news(old: &SecretRevisionStatus, error: &ApiError, now: &str) -> bool {
    let before = old.ready().map(|ready| ready.reason.as_str());
    if before == Some(NOT_FOUND_ONCE) && error.kind == ErrorKind::NotFound {
        let age = age(old.checked.as_deref(), now);
        return age.is_none_or(|age| age >= NOT_FOUND_AGAIN_AFTER);
    }
    let rejections = [ErrorKind::NotFound, ErrorKind::Disabled];
    let was_rejected = rejections
        .iter()
        .any(|kind| before == Some(kind.reason().as_str()));
    !was_rejected || error.is_definitive()
}

/// Whether the previous poll found the secret, or failed to ask.
fn is_first_not_found(old: &SecretRevisionStatus) -> bool {
    let not_found = [NOT_FOUND_ONCE.to_owned(), ErrorKind::NotFound.reason()];
    let before = old.ready();
    old.version.is_some() && !before.is_some_and(|before| not_found.contains(&before.reason))
}

/// Whether the number of pods is worth a write: it only informs users, and each write reaches every node.
fn is_count_worth_a_write(old: &SecretRevisionStatus, pods: u32, now: &str) -> bool {
    let before = old.pods.unwrap_or(0);
    let age = age(old.checked.as_deref(), now);
    before.abs_diff(pods) > before / 10 && age.is_none_or(|age| age >= COUNT_PERIOD)
}

/// The time from `at` to `now`, if both are known.
fn age(at: Option<&str>, now: &str) -> Option<Duration> {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let age = time(now)?.duration_since(time(at?)?);
    Some(age.unsigned_abs())
}

/// Lists what earlier leaders published. Retries until it succeeds.
pub(super) async fn list(client: &Client) -> Published {
    let api: Api<SecretRevision> = Api::all(client.clone());
    loop {
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                let known =
                    |r: SecretRevision| (r.name_any(), (r.spec, r.status.unwrap_or_default()));
                return list.into_iter().map(known).collect();
            }
            Err(error) => {
                let error = failure("list", "secretrevisions", "SecretRevisions", &error);
                warn!(error, "could not list SecretRevisions; retrying");
                sleep(RETRY_PERIOD).await;
            }
        }
    }
}

/// Writes a status, and the object if it does not exist.
///
/// # Errors
/// The error of the API server, for the log.
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
            // Somebody has deleted the object since it was listed or written.
            create(&api, &name, spec).await?;
            patch_status(&api, &name, status).await
        }
        result => result,
    }
    .map_err(|error| failure("patch", "secretrevisions/status", &name, &error))
}

/// Writes a new interval.
///
/// # Errors
/// The error of the API server, for the log.
pub(super) async fn write_spec(client: &Client, spec: &SecretRevisionSpec) -> Result<(), String> {
    let api: Api<SecretRevision> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"spec": {"interval": spec.interval}}));
    let (name, parameters) = (spec.object_name(), PatchParams::default());
    let patched = api.patch(&name, &parameters, &patch);
    within_timeout(patched)
        .await
        .map(drop)
        .map_err(|error| failure("patch", "secretrevisions", &name, &error))
}

/// Deletes the SecretRevision of a secret that no pod follows.
///
/// # Errors
/// The error of the API server, for the log.
pub(super) async fn remove(client: &Client, name: &str) -> Result<(), String> {
    let api: Api<SecretRevision> = Api::all(client.clone());
    let parameters = DeleteParams::default();
    match within_timeout(api.delete(name, &parameters)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        result => result
            .map(drop)
            .map_err(|error| failure("delete", "secretrevisions", name, &error)),
    }
}

async fn create(
    api: &Api<SecretRevision>,
    name: &str,
    spec: &SecretRevisionSpec,
) -> Result<(), String> {
    let object = SecretRevision::new(name, spec.clone());
    let parameters = PostParams::default();
    match within_timeout(api.create(&parameters, &object)).await {
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        result => result
            .map(drop)
            .map_err(|error| failure("create", "secretrevisions", name, &error)),
    }
}

async fn patch_status(
    api: &Api<SecretRevision>,
    name: &str,
    status: &SecretRevisionStatus,
) -> kube::Result<()> {
    let mut value = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    // A merge patch keeps fields that it does not mention: make absent fields explicit nulls.
    for field in ["version", "current", "created", "changed", "spreadSeconds"] {
        if value[field].is_null() {
            value[field] = Value::Null;
        }
    }
    let patch = Patch::Merge(json!({ "status": value }));
    within_timeout(api.patch_status(name, &PatchParams::default(), &patch))
        .await
        .map(drop)
}

/// The error of a request, for the log.
fn failure(verb: &'static str, resource: &'static str, what: &str, error: &kube::Error) -> String {
    let access = Access {
        verb,
        resource,
        what,
    };
    KubeError::new(access, error).to_string()
}

async fn within_timeout<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| {
        let timed_out = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(kube::Error::Service(Box::new(timed_out)))
    })
}
