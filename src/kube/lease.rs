//! One leader among the pods of the DaemonSet, by a Lease with client-go's rules: a candidate takes
//! a Lease that it has seen unchanged for the Lease's own duration, by its own clock; the holder
//! stops by itself before that. Source: k8s.io/client-go, `tools/leaderelection`.
//!
//! What differs is for the sake of clusters with thousands of nodes: candidates watch the Lease
//! instead of reading it every two seconds, and it is renewed every ten. The Lease also carries the
//! leader's beat: when it last had asked for everything that was due.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock::{Clock, Jitter};

/// Name of the Lease, in the namespace of the provider's pods.
pub const NAME: &str = "dew-provider";
/// Annotation with the date of the leader's beat.
const BEAT: &str = "dew-provider.io/confirmed";
/// Unchanged for this long, a Lease may be taken.
pub const DURATION: Duration = Duration::from_secs(40);
/// How often the holder renews it.
pub const RENEW: Duration = Duration::from_secs(10);
/// The holder that could not renew for this long stops: well before others may take over.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Between tries that failed, doubled up to the longest.
const RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Who gave the Lease back because it could not do the work leaves it to others for this long.
const SIT_OUT: Duration = Duration::from_secs(30);
/// Candidates wait up to this long once a Lease may be taken, so that not all try at once.
const CROWD: Duration = Duration::from_secs(5);
/// One request.
const REQUEST: Duration = Duration::from_secs(5);

/// Whether the leader has asked for all that was due and written what moved. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Beat(Arc<AtomicBool>);

impl Beat {
    /// Says so, or takes it back.
    pub fn set(&self, all_confirmed: bool) {
        self.0.store(all_confirmed, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The Lease as the watch shows it.
#[derive(Clone, Default)]
struct Seen {
    /// The first list has come.
    listed: bool,
    lease: Option<coordination::Lease>,
    /// When it was seen to change, by this process's clock.
    at: Option<Instant>,
}

/// The Lease of this cluster's providers.
#[derive(Clone)]
pub struct Lease {
    api: Api<coordination::Lease>,
    holder: String,
    clock: Clock,
    jitter: Jitter,
    renew: Duration,
    seen: watch::Sender<Seen>,
    beats: watch::Sender<Option<Instant>>,
}

impl Lease {
    /// `holder` tells this process from every other one, its predecessor on the node too. The beat is
    /// to be heard twice an `interval`.
    pub fn new(
        client: Client,
        namespace: &str,
        holder: String,
        interval: Duration,
        clock: Clock,
        jitter: Jitter,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            holder,
            clock,
            jitter,
            renew: RENEW.min(interval / 2),
            seen: watch::Sender::default(),
            beats: watch::Sender::default(),
        }
    }

    /// When a leader's beat last arrived, by this process's clock: dates of other machines are not
    /// compared with its own.
    pub fn beats(&self) -> watch::Receiver<Option<Instant>> {
        self.beats.subscribe()
    }

    /// Watches the Lease for as long as it is polled.
    pub async fn watch(self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut last_beat = None;
        let mut found = false;
        watcher(self.api.clone(), config)
            .default_backoff()
            .inspect_err(|error| warn!(%error, "watch of the Lease failed; it goes on"))
            .for_each(|event| {
                match event {
                    Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                        found = true;
                        let beat = lease.annotations().get(BEAT).cloned();
                        // What the first look shows may be old.
                        if beat.is_some() && beat != last_beat && self.seen.borrow().listed {
                            self.beats.send_replace(Some(Instant::now()));
                        }
                        last_beat = beat;
                        self.saw(Some(lease));
                    }
                    Ok(watcher::Event::Delete(_)) => self.saw(None),
                    Ok(watcher::Event::Init) => found = false,
                    Ok(watcher::Event::InitDone) => {
                        if !found {
                            self.saw(None);
                        }
                        self.seen.send_modify(|seen| seen.listed = true);
                    }
                    Err(_) => {}
                }
                std::future::ready(())
            })
            .await;
    }

    fn saw(&self, lease: Option<coordination::Lease>) {
        self.seen.send_modify(|seen| {
            let version = |l: &Option<coordination::Lease>| {
                l.as_ref().and_then(|l| l.metadata.resource_version.clone())
            };
            if seen.at.is_none() || version(&seen.lease) != version(&lease) {
                seen.at = Some(Instant::now());
            }
            seen.lease = lease;
        });
    }

    /// Does `work` whenever this process holds the Lease, and drops it the moment that it does not;
    /// gives the Lease back when `stop` is cancelled.
    pub async fn lead<W: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        beat: &Beat,
        mut work: impl FnMut() -> W,
    ) {
        while !stop.is_cancelled() {
            let Some(lease) = stop.run_until_cancelled(self.acquire()).await else {
                return;
            };
            info!(
                holder = self.holder,
                "leads: asks for all nodes from now on"
            );
            beat.set(false);
            let mut lease = lease;
            tokio::select! {
                () = self.keep(&mut lease, beat) => warn!("the Lease is lost: stops asking for all nodes"),
                () = work() => {
                    // It cannot do it: another one may try, and is given the time for it.
                    self.release(lease).await;
                    stop.run_until_cancelled(sleep(SIT_OUT)).await;
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
        let mut seen = self.seen.subscribe();
        let mut retry = RETRY;
        loop {
            let now = Instant::now();
            let (free_at, known) = {
                let seen = seen.borrow_and_update();
                (self.free_at(&seen, now), seen.lease.clone())
            };
            match free_at {
                Some(at) if at <= now => {
                    let wait = match &known {
                        // A new cluster, or given back: one among few.
                        None => self.jitter.up_to(CROWD / 5),
                        Some(lease) if holder(lease).is_empty() => self.jitter.up_to(CROWD / 5),
                        Some(_) => self.jitter.up_to(CROWD),
                    };
                    let changed = timeout(wait, seen.changed()).await;
                    if changed.is_ok() {
                        continue;
                    }
                    match self.take(known).await {
                        Ok(lease) => return lease,
                        Err(error) => {
                            debug!(%error, "the Lease was not taken");
                            sleep(retry + self.jitter.up_to(retry)).await;
                            retry = (retry * 2).min(LONGEST_RETRY);
                        }
                    }
                }
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, seen.changed()).await;
                }
                None => {
                    // Not listed yet; an error is the end of everything.
                    if seen.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// When the Lease may be taken.
    fn free_at(&self, seen: &Seen, now: Instant) -> Option<Instant> {
        if !seen.listed {
            return None;
        }
        let Some(lease) = &seen.lease else {
            return Some(now);
        };
        if holder(lease).is_empty() || holder(lease) == self.holder {
            return Some(now);
        }
        let told = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        let duration = told.and_then(|s| u64::try_from(s).ok());
        let duration = duration.map_or(DURATION, Duration::from_secs);
        Some(seen.at.unwrap_or(now) + duration)
    }

    async fn take(
        &self,
        known: Option<coordination::Lease>,
    ) -> Result<coordination::Lease, String> {
        let now = MicroTime(self.clock.now());
        let old = known.as_ref().and_then(|lease| lease.spec.clone());
        let before = old.as_ref().and_then(|spec| spec.lease_transitions);
        let spec = coordination::LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
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
                // The resource version lets only one of several succeed.
                self.replace(&lease).await
            }
            None => {
                let lease = coordination::Lease {
                    metadata: ObjectMeta {
                        name: Some(NAME.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                let parameters = PostParams::default();
                let created = self.api.create(&parameters, &lease);
                answer(timeout(REQUEST, created).await)
            }
        }
    }

    /// Renews until that has failed for too long, or somebody else holds it.
    async fn keep(&self, lease: &mut coordination::Lease, beat: &Beat) {
        let mut seen = self.seen.subscribe();
        let (mut renewed, mut wait) = (Instant::now(), self.renew);
        loop {
            let begun = tokio::time::timeout_at(renewed + GIVE_UP, async {
                self.wait(wait, &mut seen).await;
                let begun = Instant::now();
                self.renew(lease, beat).await.then_some(begun)
            });
            match begun.await {
                Ok(Some(begun)) => (renewed, wait) = (begun, self.renew),
                Ok(None) => wait = RETRY,
                Err(_) => return,
            }
            if holder(lease) != self.holder {
                return;
            }
        }
    }

    /// Waits so long, or until the watch shows another holder.
    async fn wait(&self, time: Duration, seen: &mut watch::Receiver<Seen>) {
        let other = seen.wait_for(|seen| {
            let holder = seen.lease.as_ref().map(holder);
            // What the watch shows at first may be from before this one took it.
            holder.is_some_and(|holder| !holder.is_empty() && holder != self.holder)
                && seen.at.is_some_and(|at| at.elapsed() < RETRY)
        });
        // The time being over is what is expected.
        let _ = timeout(time, other).await;
    }

    /// Renews once; returns whether that was done. What stands there otherwise is taken over.
    async fn renew(&self, lease: &mut coordination::Lease, beat: &Beat) -> bool {
        let mut next = lease.clone();
        let now = self.clock.now();
        if let Some(spec) = &mut next.spec {
            spec.renew_time = Some(MicroTime(now));
        }
        if beat.is_set() {
            next.annotations_mut()
                .insert(BEAT.to_owned(), now.to_string());
        }
        match self.replace(&next).await {
            Ok(renewal) => {
                *lease = renewal;
                true
            }
            Err(error) => {
                warn!(error, "the Lease could not be renewed");
                // Perhaps somebody else took it, or only the answer was lost.
                if let Ok(current) = answer(timeout(REQUEST, self.api.get(NAME)).await) {
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
            warn!(
                error,
                "the Lease could not be given back; it ends by itself"
            );
        }
    }

    async fn replace(&self, lease: &coordination::Lease) -> Result<coordination::Lease, String> {
        let parameters = PostParams::default();
        let replaced = self.api.replace(NAME, &parameters, lease);
        answer(timeout(REQUEST, replaced).await)
    }
}

fn answer<T, E>(result: Result<kube::Result<T>, E>) -> Result<T, String> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {REQUEST:?}")),
    }
}

fn holder(lease: &coordination::Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}
