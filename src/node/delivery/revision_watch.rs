//! Watches SecretRevisions, and applies them to the cache.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::context::Context;
use crate::cache::{ResolvedVersion, Revision, SecretRef};
use crate::kube::{KubeError, SecretRevision, SecretRevisionSpec, SecretRevisionStatus};
use crate::util::poll_interval::RotationPollInterval;

/// A change in the first list may have happened after this process started only if it is more recent than
/// this. The margin allows for clocks that differ.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// The interval of a SecretRevision in which somebody wrote an invalid one.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs until it is dropped.
pub(super) async fn run(context: Arc<Context>, client: Client, deletions: watch::Sender<u64>) {
    let started = Instant::now();
    let api: Api<SecretRevision> = Api::all(client);
    let mut known: HashMap<String, SecretRevisionSpec> = HashMap::new();
    let mut listed = HashSet::new();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_err(|error| {
            let error = KubeError::of_watch("secretrevisions", "SecretRevisions", error);
            warn!(%error, "watch of SecretRevisions failed; retrying");
        })
        .for_each(|event| {
            match event {
                Err(_) => {}
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    let name = object.name_any();
                    let at = if known.contains_key(&name) || is_recent(&context, &object) {
                        Instant::now()
                    } else {
                        started
                    };
                    apply(&context, &object, at);
                    listed.insert(name.clone());
                    known.insert(name, object.spec);
                }
                Ok(watcher::Event::InitDone) => {
                    let before = known.len();
                    known.retain(|name, spec| {
                        let exists = listed.contains(name);
                        if !exists {
                            context.cache.remove_revision(secret_ref(spec));
                        }
                        exists
                    });
                    if known.len() < before {
                        deletions.send_modify(|count| *count += 1);
                    }
                }
                Ok(watcher::Event::Apply(object)) => {
                    apply(&context, &object, Instant::now());
                    known.insert(object.name_any(), object.spec);
                }
                Ok(watcher::Event::Delete(object)) => {
                    context.cache.remove_revision(secret_ref(&object.spec));
                    known.remove(&object.name_any());
                    deletions.send_modify(|count| *count += 1);
                }
            }
            context.wake.notify_one();
            std::future::ready(())
        })
        .await;
}

fn is_recent(context: &Context, object: &SecretRevision) -> bool {
    let changed = object.status.as_ref().and_then(|s| s.changed.as_deref());
    let changed = changed.and_then(|text| text.parse::<Timestamp>().ok());
    changed.is_none_or(|at| context.clock.now().duration_since(at).unsigned_abs() < RECENT)
}

fn apply(context: &Context, object: &SecretRevision, at: Instant) {
    if let Some(status) = &object.status {
        let revision = revision(&object.spec, status);
        let secret = secret_ref(&object.spec);
        context.cache.apply_revision(secret, revision, at);
    }
}

fn revision(spec: &SecretRevisionSpec, status: &SecretRevisionStatus) -> Revision {
    let failure = status.ready().filter(|ready| ready.status != "True");
    Revision {
        resolved: status.version.clone().map(|version| ResolvedVersion {
            version,
            current: status.current.clone(),
            created: status.created,
        }),
        failure: failure.map(|ready| (ready.reason.clone(), ready.message.clone())),
        spread: Duration::from_secs(status.spread_seconds.unwrap_or(0).into()),
        interval: spec
            .interval
            .parse()
            .map_or(FALLBACK_INTERVAL, RotationPollInterval::into),
    }
}

fn secret_ref(spec: &SecretRevisionSpec) -> SecretRef<'_> {
    SecretRef {
        region: &spec.region,
        project: spec.project.as_deref(),
        secret: &spec.secret,
        stage: spec.stage.as_deref(),
    }
}
