//! Elects one leader among the pods of the DaemonSet through a Lease, by the rules of client-go: a
//! candidate takes a Lease that it has observed unchanged for the Lease's duration, by its own clock; the
//! holder stops before that. Source: k8s.io/client-go, `tools/leaderelection`.
//!
//! Unlike in client-go, candidates watch the Lease instead of reading it every two seconds, and the holder
//! renews it only every ten seconds, because a cluster may have thousands of candidates.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::kube::lease::{HEARTBEAT_ANNOTATION, LEASE_NAME, LeaseWatch, ObservedLease, holder};
use crate::kube::{Access, KubeError};
use crate::util::clock::{Clock, Jitter};

/// Candidates may take a Lease that has been unchanged for this long.
const LEASE_DURATION: Duration = Duration::from_secs(40);
/// How often the holder renews it.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// A holder that could not renew it for this long stops, well before others may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(30);
/// The wait after a failed attempt, which doubles up to [`MAX_RETRY_PERIOD`].
const RETRY_PERIOD: Duration = Duration::from_secs(2);
const MAX_RETRY_PERIOD: Duration = Duration::from_secs(60);
/// A leader that released the Lease because CSMS does not respond to it leaves the Lease to others for this
/// long.
const RESIGN_COOLDOWN: Duration = Duration::from_secs(30);
/// Candidates wait up to this long once a Lease may be taken, so that not all try at once.
const ACQUIRE_JITTER: Duration = Duration::from_secs(5);
/// Limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the next renewal carries a heartbeat: whether the leader has polled all secrets that were due and
/// published their changes. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeat(Arc<AtomicBool>);

impl Heartbeat {
    /// Allows or withholds the heartbeat.
    pub(super) fn set(&self, all_confirmed: bool) {
        self.0.store(all_confirmed, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A candidate of the election.
pub(super) struct LeaderElection {
    lease: LeaseWatch,
    identity: String,
    clock: Clock,
    jitter: Jitter,
    renew_interval: Duration,
}

impl LeaderElection {
    /// `identity` must differ from that of every other process, including the previous one on the same node.
    /// A heartbeat is sent at least twice per `interval`.
    pub(super) fn new(
        lease: LeaseWatch,
        identity: String,
        interval: Duration,
        clock: Clock,
        jitter: Jitter,
    ) -> Self {
        Self {
            lease,
            identity,
            clock,
            jitter,
            renew_interval: RENEW_INTERVAL.min(interval / 2),
        }
    }

    /// Runs `work` while this process holds the Lease, and drops it as soon as it does not. Releases the
    /// Lease when `stop` is cancelled.
    pub(super) async fn run<W: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        heartbeat: &Heartbeat,
        mut work: impl FnMut() -> W,
    ) {
        while !stop.is_cancelled() {
            let Some(lease) = stop.run_until_cancelled(self.acquire()).await else {
                return;
            };
            info!(
                holder = self.identity,
                "elected leader; polling CSMS for the cluster"
            );
            heartbeat.set(false);
            let mut lease = lease;
            tokio::select! {
                () = self.keep(&mut lease, heartbeat) => warn!("lost the Lease; no longer the leader"),
                () = work() => {
                    // The work ends only if this process cannot do it: let another one try.
                    self.release(lease).await;
                    stop.run_until_cancelled(sleep(RESIGN_COOLDOWN)).await;
                    continue;
                }
                () = stop.cancelled() => {}
            }
            if stop.is_cancelled() {
                self.release(lease).await;
            }
        }
    }

    /// Waits until the Lease may be taken, and takes it.
    async fn acquire(&self) -> coordination::Lease {
        let mut seen = self.lease.observed();
        let mut retry = RETRY_PERIOD;
        loop {
            let now = Instant::now();
            let (free_at, known) = {
                let seen = seen.borrow_and_update();
                (self.free_at(&seen, now), seen.lease.clone())
            };
            match free_at {
                Some(at) if at <= now => {
                    let wait = match &known {
                        // A new cluster, or a released Lease: few candidates.
                        None => self.jitter.up_to(ACQUIRE_JITTER / 5),
                        Some(lease) if holder(lease).is_empty() => {
                            self.jitter.up_to(ACQUIRE_JITTER / 5)
                        }
                        Some(_) => self.jitter.up_to(ACQUIRE_JITTER),
                    };
                    let changed = timeout(wait, seen.changed()).await;
                    if changed.is_ok() {
                        continue;
                    }
                    match self.take(known).await {
                        Ok(lease) => return lease,
                        Err(error) => {
                            debug!(%error, "could not take the Lease");
                            sleep(retry + self.jitter.up_to(retry)).await;
                            retry = (retry * 2).min(MAX_RETRY_PERIOD);
                        }
                    }
                }
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, seen.changed()).await;
                }
                None => {
                    // Not listed yet. The watch ends only with the process.
                    if seen.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// When the Lease may be taken; `None` before the first list.
    fn free_at(&self, seen: &ObservedLease, now: Instant) -> Option<Instant> {
        if !seen.listed {
            return None;
        }
        let Some(lease) = &seen.lease else {
            return Some(now);
        };
        if holder(lease).is_empty() || holder(lease) == self.identity {
            return Some(now);
        }
        let specified = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        let duration = specified.and_then(|s| u64::try_from(s).ok());
        let duration = duration.map_or(LEASE_DURATION, Duration::from_secs);
        Some(seen.changed.unwrap_or(now) + duration)
    }

    async fn take(
        &self,
        known: Option<coordination::Lease>,
    ) -> Result<coordination::Lease, String> {
        let now = MicroTime(self.clock.now());
        let old = known.as_ref().and_then(|lease| lease.spec.clone());
        let before = old.as_ref().and_then(|spec| spec.lease_transitions);
        let spec = coordination::LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(before.map_or(0, |count| count.saturating_add(1))),
            ..coordination::LeaseSpec::default()
        };
        match known {
            Some(known) => {
                let lease = coordination::Lease {
                    spec: Some(spec),
                    ..known
                };
                // The resourceVersion lets only one of several candidates succeed.
                self.replace(&lease).await
            }
            None => {
                let lease = coordination::Lease {
                    metadata: ObjectMeta {
                        name: Some(LEASE_NAME.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                let parameters = PostParams::default();
                let created = self.lease.api().create(&parameters, &lease);
                response("create", timeout(REQUEST_TIMEOUT, created).await)
            }
        }
    }

    /// Renews the Lease until that has failed for too long, or another process holds it.
    async fn keep(&self, lease: &mut coordination::Lease, heartbeat: &Heartbeat) {
        let mut seen = self.lease.observed();
        let (mut renewed, mut wait) = (Instant::now(), self.renew_interval);
        loop {
            let renewal = tokio::time::timeout_at(renewed + RENEW_DEADLINE, async {
                self.wait(wait, &mut seen).await;
                let started = Instant::now();
                self.renew(lease, heartbeat).await.then_some(started)
            });
            match renewal.await {
                Ok(Some(started)) => (renewed, wait) = (started, self.renew_interval),
                Ok(None) => wait = RETRY_PERIOD,
                Err(_) => return,
            }
            if holder(lease) != self.identity {
                return;
            }
        }
    }

    /// Waits for `time`, or until another holder is observed.
    async fn wait(&self, time: Duration, seen: &mut watch::Receiver<ObservedLease>) {
        let other = seen.wait_for(|seen| {
            let holder = seen.lease.as_ref().map(holder);
            // The watch may still show the Lease from before this process took it.
            holder.is_some_and(|holder| !holder.is_empty() && holder != self.identity)
                && seen.changed.is_some_and(|at| at.elapsed() < RETRY_PERIOD)
        });
        // A timeout is the normal case.
        let _ = timeout(time, other).await;
    }

    /// Renews once. Returns whether that succeeded; if not, reads `lease` from the API server again.
    async fn renew(&self, lease: &mut coordination::Lease, heartbeat: &Heartbeat) -> bool {
        let mut next = lease.clone();
        let now = self.clock.now();
        if let Some(spec) = &mut next.spec {
            spec.renew_time = Some(MicroTime(now));
        }
        if heartbeat.is_set() {
            next.annotations_mut()
                .insert(HEARTBEAT_ANNOTATION.to_owned(), now.to_string());
        }
        match self.replace(&next).await {
            Ok(renewal) => {
                *lease = renewal;
                true
            }
            Err(error) => {
                warn!(error, "could not renew the Lease");
                // Another process may have taken it, or only the response was lost.
                let read = timeout(REQUEST_TIMEOUT, self.lease.api().get(LEASE_NAME));
                if let Ok(current) = response("get", read.await) {
                    *lease = current;
                }
                false
            }
        }
    }

    async fn release(&self, mut lease: coordination::Lease) {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.replace(&lease).await {
            warn!(error, "could not release the Lease; it will expire");
        }
    }

    async fn replace(&self, lease: &coordination::Lease) -> Result<coordination::Lease, String> {
        let parameters = PostParams::default();
        let replaced = self.lease.api().replace(LEASE_NAME, &parameters, lease);
        response("update", timeout(REQUEST_TIMEOUT, replaced).await)
    }
}

/// The response to a request for the Lease, or the error for the log.
fn response<T, E>(verb: &'static str, result: Result<kube::Result<T>, E>) -> Result<T, String> {
    let access = Access {
        verb,
        resource: "leases",
        what: "the Lease",
    };
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(KubeError::new(access, &error).to_string()),
        Err(_) => Err(format!("timed out after {REQUEST_TIMEOUT:?}")),
    }
}

impl fmt::Debug for LeaderElection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderElection")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
