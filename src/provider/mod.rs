//! The gRPC service that the driver calls, and the way of a Mount through its steps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request as Grpc, Response, Status};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::kube::Events;
use crate::kube::events::Weight;
use crate::observe::metrics::{Metrics, MountLabels};
use crate::proto::csi_driver_provider_server::CsiDriverProvider;
use crate::proto::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use crate::store::Store;

pub mod authorize;
pub mod error;
pub mod fetch;
pub mod files;
mod numbers;
pub mod parameters;
pub mod paths;
pub mod request;
pub mod resolve;
pub mod secrets;
pub mod select;
pub mod spec;
mod spec_cache;
pub mod volumes;

use authorize::Authorizer;
use error::{MountError, Reason};
use fetch::Fetched;
use request::{Pod, Request};
use resolve::Resolver;
use spec_cache::SpecCache;
use volumes::{VolumeId, Volumes};

/// Reason of the Event of a pod that got a value from before an outage.
const STALE: &str = "SecretNotConfirmed";

/// Reasons of the Events of a pod whose volume follows a change, or cannot.
pub const ROTATED: &str = "SecretRotated";
/// See [`ROTATED`].
pub const ROTATION_FAILED: &str = "SecretRotationFailed";

/// How long mounts go on after the signal to stop: a little less than the process, because a
/// connection that breaks off would be UNAVAILABLE for kubelet, and the pod's folder stay empty.
const LAST_CALL: Duration = Duration::from_secs(19);
const STOPPING: &str = "the provider is stopping, and this mount took too long to wait for: kubelet \
                        tries again, with the provider that comes next";

/// The provider. Clones share everything.
#[derive(Clone, Debug)]
pub struct Provider(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    authorizer: Authorizer,
    resolver: Resolver,
    store: Store,
    specs: SpecCache,
    volumes: Volumes,
    events: Option<Events>,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Provider {
    /// Puts the parts together; `interval` is `rotation_poll_interval`; without `events` pods'
    /// Events are not written; `stopping` is cancelled when the process is to end.
    pub fn new(
        authorizer: Authorizer,
        resolver: Resolver,
        store: Store,
        interval: Duration,
        events: Option<Events>,
        stopping: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        // At zero from the start: a rate can be taken of the first failure too.
        let failures = Reason::ALL.map(|reason| ("error", reason.label()));
        for (outcome, reason) in [("ok", "none"), ("error", "panic")]
            .into_iter()
            .chain(failures)
        {
            let labels = MountLabels { outcome, reason };
            drop(metrics.mounts.get_or_create(&labels));
        }
        let (specs, volumes) = (SpecCache::default(), Volumes::new(interval));
        Self(Arc::new(Parts {
            authorizer,
            resolver,
            store,
            specs,
            volumes,
            events,
            stopping,
            metrics,
        }))
    }

    /// The volumes that were filled.
    pub fn volumes(&self) -> &Volumes {
        &self.0.volumes
    }

    /// What this node knows of secrets.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Decides as whom and where is asked.
    pub fn resolver(&self) -> &Resolver {
        &self.0.resolver
    }

    /// Where Events go.
    pub fn events(&self) -> Option<&Events> {
        self.0.events.as_ref()
    }

    /// Forgets what belonged to pods that are gone. To be called now and then.
    pub fn sweep(&self) {
        self.0.store.sweep();
        self.0.volumes.sweep();
    }
}

impl Parts {
    /// The way of a Mount: each step takes what the one before it gave.
    async fn mount(&self, request: Request) -> Result<(MountResponse, bool), MountError> {
        let volume = VolumeId::of(&request);
        let settings = self.volumes.settings(&request.parameters);
        let result = self.steps(request, volume.clone(), settings).await;
        if let Err(error) = &result
            && let Some((pod, lasted)) = self.volumes.failed(&volume, settings, error)
        {
            self.tell_failure(&pod, error, lasted);
        }
        result
    }

    async fn steps(
        &self,
        request: Request,
        volume: VolumeId,
        settings: u64,
    ) -> Result<(MountResponse, bool), MountError> {
        let default_mode = request.default_mode;
        let spec = self
            .specs
            .get(&request.class, request.parameters.objects.as_deref())?;
        let authorized = self
            .authorizer
            .authorize(request, spec, self.volumes.max_age(&volume))
            .await?;
        let plan = self.resolver.resolve(&authorized)?;
        let max_ages = self.volumes.max_ages(&volume, &plan, &self.store);
        let fetched = fetch::fetch(&plan, &max_ages, &self.store).await?;
        let request = authorized.request;
        self.tell_stale(&request.pod, &fetched);
        let response = files::files(&fetched, default_mode)?;
        let filled = (self.volumes).filled(volume, settings, &request, &plan, &fetched);
        self.tell_changes(&request.pod, &filled.changes);
        Ok((response, filled.is_new))
    }

    fn tell_changes(&self, pod: &Pod, changes: &[String]) {
        if changes.is_empty() {
            return;
        }
        let text = changes.join(", ");
        info!(changes = text, "rotated");
        if let Some(events) = &self.events {
            events.of_pod(pod.reference(), Weight::Normal, ROTATED, text);
        }
    }

    /// The driver hides failures of volumes that are mounted already.
    fn tell_failure(&self, pod: &Pod, error: &MountError, lasted: Duration) {
        if let Some(events) = &self.events {
            let text = format!(
                "the volume keeps its files, and could not be brought up to date for {} s: {}",
                lasted.as_secs(),
                error.message
            );
            events.of_pod(pod.reference(), Weight::Warning, ROTATION_FAILED, text);
        }
    }

    /// An outage that is bridged should not pass unseen.
    fn tell_stale(&self, pod: &Pod, fetched: &[Fetched]) {
        let mut served = Vec::new();
        for item in fetched {
            let (Some(stale), Some(secret)) = (&item.stale, &item.secret) else {
                continue;
            };
            let object = &item.planned.object.name;
            let version = &secret.id;
            let error = stale.error.as_ref().map(ToString::to_string);
            let confirmed_seconds_ago = stale.age.as_secs();
            warn!(
                object,
                version, confirmed_seconds_ago, error, "served what was fetched before the outage"
            );
            served.push(format!("{object:?} {version}"));
        }
        if let (Some(events), false) = (&self.events, served.is_empty()) {
            let text = format!(
                "CSMS could not be asked; the volume has what was last fetched: {}",
                served.join(", ")
            );
            events.of_pod(pod.reference(), Weight::Warning, STALE, text);
        }
    }

    /// The end of the time that mounts in flight have once the process is to stop.
    async fn last_call(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(LAST_CALL).await;
    }

    async fn answer(&self, message: Grpc<MountRequest>) -> Result<MountResponse, MountError> {
        let begun = Instant::now();
        let request = Request::parse(message.get_ref(), message.metadata());
        let span = match &request {
            Ok(r) => {
                info_span!("mount", pod = %format_args!("{}/{}", r.pod.namespace, r.pod.name), class = r.class)
            }
            Err(_) => info_span!("mount"),
        };
        async {
            let result = match request {
                Ok(request) => tokio::select! {
                    result = self.mount(request) => result,
                    () = self.last_call() => Err(MountError::new(Reason::Internal, STOPPING)),
                },
                Err(error) => Err(error),
            };
            self.record(begun, &result);
            result.map(|(response, _)| response)
        }
        .instrument(span)
        .await
    }

    /// One log line and one count for every Mount; a repeated one is only worth a debug line.
    fn record(&self, begun: Instant, result: &Result<(MountResponse, bool), MountError>) {
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        let (outcome, reason) = match result {
            Ok((response, true)) => {
                info!(files = response.files.len(), milliseconds, versions = %Versions(response), "mounted");
                ("ok", "none")
            }
            Ok((response, false)) => {
                debug!(files = response.files.len(), milliseconds, versions = %Versions(response), "mounted again");
                ("ok", "none")
            }
            Err(error) => {
                warn!(reason = error.reason.label(), milliseconds, %error, "mount failed");
                ("error", error.reason.label())
            }
        };
        self.metrics
            .mounts
            .get_or_create(&MountLabels { outcome, reason })
            .inc();
        self.metrics
            .mount_seconds
            .observe(begun.elapsed().as_secs_f64());
    }
}

#[tonic::async_trait]
impl CsiDriverProvider for Provider {
    async fn version(&self, _: Grpc<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "v1alpha1".into(),
            runtime_name: env!("CARGO_PKG_NAME").into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn mount(&self, request: Grpc<MountRequest>) -> Result<Response<MountResponse>, Status> {
        // A panic is this request's failure, not the process's. Its message is not shown: it may
        // quote what was being worked on.
        let work = std::panic::AssertUnwindSafe(self.0.answer(request)).catch_unwind();
        match work.await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => {
                error!("a mount panicked");
                let labels = MountLabels {
                    outcome: "error",
                    reason: "panic",
                };
                self.0.metrics.mounts.get_or_create(&labels).inc();
                let message = "dew-provider failed inside: a bug, please report it with its log";
                Err(MountError::new(Reason::Internal, message).into())
            }
        }
    }
}

/// File paths and versions of an answer, for the log.
struct Versions<'a>(&'a MountResponse);

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, object) in self.0.object_version.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}={}", object.id, object.version)?;
        }
        Ok(())
    }
}
