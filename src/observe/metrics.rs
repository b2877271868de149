//! The metric families, registered once and handed to the parts that count.
//!
//! No label ever holds the name of a secret, a pod or a namespace: their number has no bound, and
//! metrics are readable by more people than pods are.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// How a Mount ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MountLabels {
    /// `ok` or `error`.
    pub outcome: &'static str,
    /// `none`, or the kind of the failure (`provider::error`).
    pub reason: &'static str,
}

/// One attempt of a call to the cloud.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// Name of the API operation, such as `ShowSecretVersion`.
    pub operation: &'static str,
    /// `ok`, or the kind of the failure (`cloud::error`).
    pub outcome: &'static str,
}

/// An operation that was tried again.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OperationLabels {
    /// Name of the API operation.
    pub operation: &'static str,
}

/// How the store answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreLabels {
    /// `hit` (fresh), `joined` (waited for another's fetch), `fetched`, `stale` (served in an
    /// outage), or `failed`.
    pub result: &'static str,
}

/// Where credentials came from.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    /// `environment`, `file`, `agency`.
    pub source: &'static str,
}

/// Counted by `cloud/`.
#[derive(Clone, Debug)]
pub struct CloudMetrics {
    /// Attempts of calls by operation and outcome.
    pub calls: Family<CallLabels, Counter>,
    /// Seconds of one attempt by operation.
    pub seconds: Family<OperationLabels, Histogram>,
    /// Attempts after the first by operation.
    pub retries: Family<OperationLabels, Counter>,
    /// Unix time at which the temporary keys in use expire, by source.
    pub credential_expiry: Family<SourceLabels, Gauge>,
}

impl Default for CloudMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
            }),
            retries: Family::default(),
            credential_expiry: Family::default(),
        }
    }
}

/// How calls of the driver for one volume end: [`NudgeLabels::outcome`].
pub const NUDGE_OUTCOMES: [&str; 6] = [
    "delivered",
    "repeated",
    "failed",
    "gone",
    "cleaned",
    "gave_up",
];

/// How a call of the driver for one volume ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct NudgeLabels {
    /// `delivered`, `repeated` (the driver skipped it, it is tried again), `failed`, `gone` (the pod
    /// is), `cleaned` (the pod ended meanwhile), `gave_up`.
    pub outcome: &'static str,
}

/// Counted by `rotation/`.
#[derive(Clone, Debug)]
pub struct RotationMetrics {
    /// Seconds since the secret in use that was confirmed longest ago was confirmed.
    pub oldest: Gauge<f64, AtomicU64>,
    /// Secrets in use that cannot be confirmed.
    pub failing: Gauge,
    /// New versions fetched.
    pub changes: Counter,
    /// Calls of the driver by outcome.
    pub nudges: Family<NudgeLabels, Counter>,
    /// Seconds from a change seen to the last volume of the node.
    pub delivery: Histogram,
    /// Whether this process asks for all nodes.
    pub leader: Gauge,
    /// Secrets that the leader asks for.
    pub planned: Gauge,
    /// Seconds by which the leader's next question is late.
    pub behind: Gauge<f64, AtomicU64>,
}

impl RotationMetrics {
    fn register(registry: &mut Registry) -> Self {
        let new = Self {
            oldest: Gauge::default(),
            failing: Gauge::default(),
            changes: Counter::default(),
            nudges: Family::default(),
            delivery: Histogram::new([
                0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
            ]),
            leader: Gauge::default(),
            planned: Gauge::default(),
            behind: Gauge::default(),
        };
        // At zero from the start: a rate can be taken of the first one too.
        for outcome in NUDGE_OUTCOMES {
            drop(new.nudges.get_or_create(&NudgeLabels { outcome }));
        }
        registry.register_with_unit(
            "rotation_oldest_unconfirmed",
            "Time since the secret in use that was confirmed longest ago was confirmed",
            Unit::Seconds,
            new.oldest.clone(),
        );
        registry.register(
            "rotation_failing_secrets",
            "Secrets in use that cannot be confirmed",
            new.failing.clone(),
        );
        registry.register(
            "rotation_changes",
            "New versions fetched",
            new.changes.clone(),
        );
        registry.register(
            "nudges",
            "Calls of the driver for one volume by outcome",
            new.nudges.clone(),
        );
        registry.register_with_unit(
            "rotation_delivery",
            "Time from a change seen to the last volume of the node",
            Unit::Seconds,
            new.delivery.clone(),
        );
        registry.register(
            "rotation_leader",
            "Whether this process asks for all nodes",
            new.leader.clone(),
        );
        registry.register(
            "rotation_planned_secrets",
            "Secrets that the leader asks for",
            new.planned.clone(),
        );
        registry.register_with_unit(
            "rotation_behind",
            "Time by which the leader's next question is late",
            Unit::Seconds,
            new.behind.clone(),
        );
        new
    }
}

/// All families of the process, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Mounts by outcome and reason.
    pub mounts: Family<MountLabels, Counter>,
    /// Seconds of one Mount.
    pub mount_seconds: Histogram,
    /// Answers of the store.
    pub store: Family<StoreLabels, Counter>,
    /// Bytes of values that the store holds.
    pub store_bytes: Gauge,
    /// Counted by the cloud client.
    pub cloud: CloudMetrics,
    /// Counted by rotation.
    pub rotation: RotationMetrics,
}

impl Metrics {
    /// New families at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("dew_provider");
        let mounts = Family::<MountLabels, Counter>::default();
        registry.register(
            "mounts",
            "Mount requests by outcome and reason",
            mounts.clone(),
        );
        let mount_seconds = Histogram::new([
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            45.0,
        ]);
        registry.register_with_unit(
            "mount_duration",
            "Time from a Mount request to its answer",
            Unit::Seconds,
            mount_seconds.clone(),
        );
        let store = Family::<StoreLabels, Counter>::default();
        registry.register(
            "store_requests",
            "Requests to the store by result",
            store.clone(),
        );
        let store_bytes = Gauge::default();
        registry.register_with_unit(
            "store_size",
            "Secret values held in memory",
            Unit::Bytes,
            store_bytes.clone(),
        );
        let cloud = CloudMetrics::default();
        registry.register(
            "cloud_calls",
            "Attempts of calls to Huawei Cloud by operation and outcome",
            cloud.calls.clone(),
        );
        registry.register_with_unit(
            "cloud_call_duration",
            "Time of one attempt of a call to Huawei Cloud",
            Unit::Seconds,
            cloud.seconds.clone(),
        );
        registry.register(
            "cloud_retries",
            "Attempts after the first by operation",
            cloud.retries.clone(),
        );
        registry.register_with_unit(
            "credential_expiry_timestamp",
            "Unix time at which the temporary credentials in use expire",
            Unit::Seconds,
            cloud.credential_expiry.clone(),
        );
        let rotation = RotationMetrics::register(&mut registry);
        Arc::new(Self {
            registry,
            mounts,
            mount_seconds,
            store,
            store_bytes,
            cloud,
            rotation,
        })
    }

    /// The families in OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
