//! Notices when a pod may no longer mount the secrets of a volume that it has mounted.
//!
//! A Mount checks that too, but neither the driver nor kubelet calls Mount at any given time. A volume that is
//! revoked keeps its files, because its containers use them, and follows its secrets no more.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::authorize::Authorizer;
use super::error::MountError;
use crate::kube::{EventReason, Events};
use crate::node::volumes::{MountRecord, VolumeId, Volumes};

/// Time between two checks.
const PERIOD: Duration = Duration::from_secs(10);
/// Maximum age of a list for a check, 5 s of which may be the lag of the API server's cache. Together with the period it is less than
/// [`AUTHORIZATION`](crate::node::volumes::freshness::AUTHORIZATION), so that Mounts need no further reads.
const MAX_AGE: Duration = Duration::from_secs(45);
/// Limit of the check of one ServiceAccount.
const TIMEOUT: Duration = Duration::from_secs(10);
/// ServiceAccounts that are read at once.
const MAX_CONCURRENT: usize = 8;

/// Repeats the authorization of mounted volumes.
pub struct RevocationWatch {
    authorizer: Authorizer,
    volumes: Arc<Volumes>,
    events: Option<Events>,
    revoked: Gauge,
}

impl RevocationWatch {
    /// Without `events`, revocations are only logged. `revoked` is set to the number of revoked volumes.
    pub fn new(
        authorizer: Authorizer,
        volumes: Arc<Volumes>,
        events: Option<Events>,
        revoked: Gauge,
    ) -> Self {
        Self {
            authorizer,
            volumes,
            events,
            revoked,
        }
    }

    /// Checks all volumes, again and again. Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            sleep(PERIOD).await;
            // One task at a time reads the list of a ServiceAccount, and the others find it in the cache.
            let mut accounts: HashMap<(String, String), Vec<_>> = HashMap::new();
            for (id, record) in self.volumes.of_staying_pods() {
                let pod = &record.pod;
                let account = (pod.namespace.clone(), pod.service_account.clone());
                accounts.entry(account).or_default().push((id, record));
            }
            let checks = accounts.into_values().map(|volumes| async {
                for (id, record) in volumes {
                    self.check(&id, &record).await;
                }
            });
            stream::iter(checks)
                .buffer_unordered(MAX_CONCURRENT)
                .collect::<()>()
                .await;
            self.count();
        }
    }

    /// Checks one volume, and reports it once if it is revoked. Returns whether it is.
    pub(super) async fn check(&self, id: &VolumeId, record: &MountRecord) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        let was_revoked = self.volumes.is_revoked(id);
        let (pod, class) = (&record.pod, &id.class);
        let verdict = self
            .authorizer
            .recheck(record, class, MAX_AGE, !was_revoked, deadline)
            .await;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                // A Mount that cannot check it hands out nothing either.
                debug!(%error, "could not check a mounted volume");
                return false;
            }
        };
        let Err(error) = verdict else {
            if self.volumes.restore(id) {
                info!(
                    pod = pod.name,
                    class, "the pod may use its secrets again: its volume is updated again"
                );
                self.count();
            }
            return false;
        };
        if self.volumes.revoke(id) {
            warn!(pod = pod.name, class, %error, "a mounted volume is no longer updated");
            self.count();
        }
        // An Event beyond the namespace's budget is tried again with the next check.
        if !self.volumes.is_revocation_reported(id) && self.report(record, &error) {
            self.volumes.note_revocation_reported(id);
        }
        true
    }

    /// Writes an Event; returns whether it is within the budget.
    fn report(&self, record: &MountRecord, error: &MountError) -> bool {
        let Some(events) = &self.events else {
            return true;
        };
        let note = format!(
            "the pod may no longer use its secrets: the volume keeps its files until the pod ends, and gets no \
             new versions: {error}"
        );
        events.about_pod(
            record.pod.event_target(),
            EventReason::SecretAccessRevoked,
            note,
        )
    }

    fn count(&self) {
        self.revoked.set(self.volumes.revoked() as i64);
    }
}

impl fmt::Debug for RevocationWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevocationWatch")
    }
}
