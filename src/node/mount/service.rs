//! The gRPC service that the driver calls: runs each Mount through the pipeline, and reports how it ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request as GrpcRequest, Response, Status};
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::error::{MountError, Reason};
use super::fetch::FetchedObject;
use super::request::Request;
use super::revocation::RevocationWatch;
use super::{Mounted, Pipeline};
use crate::cloud::ErrorKind;
use crate::kube::{EventReason, Events, PodRef};
use crate::node::volumes::MountFailure;
use crate::proto::csi_driver_provider_server::CsiDriverProvider;
use crate::proto::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use crate::telemetry::metrics::{Metrics, MountLabels};
use crate::util::text::joined;

/// How long in-flight mounts may continue after the signal to stop. Slightly less than the time after which
/// the process ends, because a broken connection counts as UNAVAILABLE, which leaves the pod an empty
/// directory.
const MOUNT_DRAIN: Duration = Duration::from_secs(19);
const STOPPING: &str = "the provider is shutting down and this mount took too long; kubelet will retry \
                        with the next provider";

/// Maximum size of a list in an Event, in bytes: the API server accepts 1 KiB of text.
const MAX_NOTE: usize = 900;
/// Maximum number of cached versions that an Event names.
const MAX_SERVED: usize = 20;

/// The service. Clones share everything.
#[derive(Clone, Debug)]
pub struct MountService(Arc<ServiceShared>);

#[derive(Debug)]
struct ServiceShared {
    pipeline: Pipeline,
    revocation: Arc<RevocationWatch>,
    events: Option<Events>,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

impl MountService {
    /// Without `events`, no Events are written. `stopping` is cancelled when the process shuts down.
    pub fn new(
        pipeline: Pipeline,
        events: Option<Events>,
        stopping: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        let revocation = RevocationWatch::new(
            pipeline.authorizer.clone(),
            Arc::clone(&pipeline.volumes),
            events.clone(),
            metrics.revoked_volumes.clone(),
        );
        // Initialized to zero, so that a rate includes the first failure.
        let failures = Reason::ALL.map(|reason| ("error", reason.label()));
        for (outcome, reason) in [("ok", "none"), ("error", "panic")]
            .into_iter()
            .chain(failures)
        {
            let labels = MountLabels { outcome, reason };
            drop(metrics.mounts.get_or_create(&labels));
        }
        Self(Arc::new(ServiceShared {
            pipeline,
            revocation: Arc::new(revocation),
            events,
            stopping,
            metrics,
        }))
    }

    /// The watch of the mounted volumes' authorization, which has to be run.
    pub fn revocation(&self) -> Arc<RevocationWatch> {
        Arc::clone(&self.0.revocation)
    }
}

impl ServiceShared {
    async fn handle(
        &self,
        message: GrpcRequest<MountRequest>,
    ) -> Result<Response<MountResponse>, MountError> {
        let started = Instant::now();
        let request = Request::parse(message.get_ref(), message.metadata());
        // It is larger than what is kept of it, and a Mount may wait for the cloud.
        drop(message);
        let span = match &request {
            Ok(r) => {
                info_span!("mount", pod = %format_args!("{}/{}", r.pod.namespace, r.pod.name), class = r.class)
            }
            Err(_) => info_span!("mount"),
        };
        async {
            let result = match &request {
                Ok(request) => self.mount(request).await,
                Err(error) => Err(error.clone()),
            };
            self.record(started, &result);
            result.map(|mounted| {
                let mut response = Response::new(mounted.response);
                if let Some(room) = mounted.room {
                    response.extensions_mut().insert(room);
                }
                response
            })
        }
        .instrument(span)
        .await
    }

    async fn mount(&self, request: &Request) -> Result<Mounted, MountError> {
        let drained = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(MOUNT_DRAIN).await;
        };
        let result = tokio::select! {
            result = self.pipeline.mount(request) => result,
            () = drained => return Err(MountError::new(Reason::Internal, STOPPING)),
        };
        match &result {
            Ok(mounted) => {
                self.report_stale(&request.pod, &mounted.fetched);
                self.report_changes(&request.pod, &mounted.change.changes);
            }
            Err(error) => self.report_failure(request, error).await,
        }
        result
    }

    fn report_changes(&self, pod: &PodRef, changes: &[String]) {
        if changes.is_empty() {
            return;
        }
        let note = joined(changes, ", ", changes.len(), MAX_NOTE);
        info!(changes = note, "rotated");
        if let Some(events) = &self.events {
            events.about_pod(pod.event_target(), EventReason::SecretRotated, note);
        }
    }

    /// Reports the failure of a volume that is mounted already, which the driver hides.
    async fn report_failure(&self, request: &Request, error: &MountError) {
        let volumes = &self.pipeline.volumes;
        if error.reason == Reason::Denied
            && let Some(record) = volumes.get(&request.volume_id())
            && self.revocation.check(&request.volume_id(), &record).await
        {
            return;
        }
        let settings = volumes.settings(&request.parameters);
        let failure = MountFailure {
            reason: error.reason.label(),
            is_transient: error.reason == Reason::Internal,
        };
        let Some((pod, lasted)) = volumes.record_failure(&request.volume_id(), settings, failure)
        else {
            return;
        };
        if let Some(events) = &self.events {
            let note = format!(
                "the volume keeps its files and could not be updated for {} s: {}",
                lasted.as_secs(),
                error.message
            );
            events.about_pod(pod.event_target(), EventReason::SecretRotationFailed, note);
        }
    }

    /// Reports versions that were served during an outage.
    fn report_stale(&self, pod: &PodRef, fetched: &[FetchedObject]) {
        let mut served = Vec::new();
        let mut missing_only = true;
        for item in fetched {
            let (Some(stale), Some(version)) = (&item.stale, &item.version) else {
                continue;
            };
            let object = &item.object.name;
            let version = &version.id;
            let error = stale.error.as_ref().map(ToString::to_string);
            let confirmed_seconds_ago = stale.age.as_secs();
            warn!(
                object,
                version, confirmed_seconds_ago, error, "served the cached version during an outage"
            );
            let kind = stale.error.as_ref().map(|error| error.kind);
            missing_only &= kind == Some(ErrorKind::NotFound);
            served.push(format!("{object:?} {version}"));
        }
        if let (Some(events), false) = (&self.events, served.is_empty()) {
            let why = if missing_only {
                "CSMS did not find the secret, but may be mistaken"
            } else {
                "CSMS is unreachable"
            };
            let note = format!(
                "{why}; the volume has the last known versions: {}",
                joined(served, ", ", MAX_SERVED, MAX_NOTE)
            );
            events.about_pod(pod.event_target(), EventReason::SecretNotConfirmed, note);
        }
    }

    /// Logs and counts a Mount. Logs a repeated one that succeeded at debug level only.
    fn record(&self, started: Instant, result: &Result<Mounted, MountError>) {
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        let (outcome, reason) = match result {
            Ok(mounted) => {
                let (response, versions) = (&mounted.response, Versions(&mounted.response));
                let files = response.files.len();
                if mounted.change.is_new {
                    info!(files, milliseconds, %versions, "mounted");
                } else {
                    debug!(files, milliseconds, %versions, "mounted again");
                }
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
            .observe(started.elapsed().as_secs_f64());
    }
}

#[tonic::async_trait]
impl CsiDriverProvider for MountService {
    async fn version(
        &self,
        _: GrpcRequest<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "v1alpha1".into(),
            runtime_name: env!("CARGO_PKG_NAME").into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn mount(
        &self,
        request: GrpcRequest<MountRequest>,
    ) -> Result<Response<MountResponse>, Status> {
        // A panic fails this request only. The log does not show its message, which may quote a secret.
        let work = std::panic::AssertUnwindSafe(self.0.handle(request)).catch_unwind();
        match work.await {
            Ok(result) => Ok(result?),
            Err(_) => {
                error!("a mount panicked");
                let labels = MountLabels {
                    outcome: "error",
                    reason: "panic",
                };
                self.0.metrics.mounts.get_or_create(&labels).inc();
                let message = "internal error in dew-provider; please report this bug with its log";
                Err(MountError::new(Reason::Internal, message).into())
            }
        }
    }
}

/// File paths and versions of a response, for the log.
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
