//! What the leader says, for as long as somebody listens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tracing::warn;

use super::{Parts, write};
use crate::kube::{SecretRevision, SecretRevisionSpec};
use crate::store::Subject;

/// A move that the first list tells of was a while before this process, unless it was within this
/// time: clocks that differ by more cannot sign.
const LATELY: Duration = Duration::from_secs(10 * 60);
/// Keeps the store's words up to date, for as long as it is polled.
pub(super) async fn listen(parts: Arc<Parts>, client: Client) {
    let born = Instant::now();
    let api: Api<SecretRevision> = Api::all(client);
    let mut known: HashMap<String, SecretRevisionSpec> = HashMap::new();
    let mut listed = HashSet::new();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_err(|error| warn!(%error, "watch of SecretRevisions failed; it goes on"))
        .for_each(|event| {
            match event {
                Err(_) => {}
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(revision)) => {
                    let name = revision.name_any();
                    let at = match known.contains_key(&name) || lately(&parts, &revision) {
                        true => Instant::now(),
                        false => born,
                    };
                    hear(&parts, &revision, at);
                    listed.insert(name.clone());
                    known.insert(name, revision.spec);
                }
                Ok(watcher::Event::InitDone) => {
                    let before = known.len();
                    known.retain(|name, spec| {
                        let there = listed.contains(name);
                        if !there {
                            parts.provider.store().unhear(subject(spec));
                        }
                        there
                    });
                    if known.len() < before {
                        parts.deletions.send_modify(|count| *count += 1);
                    }
                }
                Ok(watcher::Event::Apply(revision)) => {
                    hear(&parts, &revision, Instant::now());
                    known.insert(revision.name_any(), revision.spec);
                }
                Ok(watcher::Event::Delete(revision)) => {
                    parts.provider.store().unhear(subject(&revision.spec));
                    known.remove(&revision.name_any());
                    parts.deletions.send_modify(|count| *count += 1);
                }
            }
            parts.look_again.notify_one();
            std::future::ready(())
        })
        .await;
}

fn lately(parts: &Parts, revision: &SecretRevision) -> bool {
    let changed = revision.status.as_ref().and_then(|s| s.changed.as_deref());
    let changed = changed.and_then(|text| text.parse::<Timestamp>().ok());
    changed.is_none_or(|at| parts.clock.now().duration_since(at).unsigned_abs() < LATELY)
}

fn hear(parts: &Parts, revision: &SecretRevision, at: Instant) {
    if let Some(status) = &revision.status {
        let store = parts.provider.store();
        let word = write::word(&revision.spec, status);
        store.hear(subject(&revision.spec), word, at);
    }
}

fn subject(spec: &SecretRevisionSpec) -> Subject<'_> {
    Subject {
        region: &spec.region,
        project: spec.project.as_deref(),
        secret: &spec.secret,
        stage: spec.stage.as_deref(),
    }
}
