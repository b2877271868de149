//! The metric families, registered once and passed to the parts that use them.
//!
//! No label contains the name of a secret, a pod or a namespace: their number is unbounded, and more
//! people can read metrics than pods.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
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
    /// `none`, or the kind of the failure (`node::mount::error`).
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

/// An operation that was retried.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OperationLabels {
    /// Name of the API operation.
    pub operation: &'static str,
}

/// How the cache served a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CacheLabels {
    /// `hit` (fresh), `joined` (waited for a fetch in flight), `fetched`, `stale` (served during an
    /// outage), or `failed`.
    pub result: &'static str,
}

/// The source of credentials.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    /// `environment`, `file`, `agency`.
    pub source: &'static str,
}

/// Counted by the cloud client.
#[derive(Clone, Debug)]
pub struct CloudMetrics {
    /// Attempts, by operation and outcome.
    pub calls: Family<CallLabels, Counter>,
    /// Duration of one attempt in seconds, by operation.
    pub seconds: Family<OperationLabels, Histogram>,
    /// Retries, by operation.
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

/// How a nudge ended: a call that makes the driver update one volume.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum NudgeOutcome {
    /// The volume is up to date.
    Delivered,
    /// The driver skipped the volume; the nudge is repeated.
    Repeated,
    /// The driver or the Mount failed.
    Failed,
    /// The pod no longer exists.
    Gone,
    /// The pod ended meanwhile, and the volume was unmounted again.
    Cleaned,
    /// The volume stayed outdated for too long.
    Abandoned,
}

impl NudgeOutcome {
    /// All outcomes.
    pub const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Repeated,
        Self::Failed,
        Self::Gone,
        Self::Cleaned,
        Self::Abandoned,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Repeated => "repeated",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Cleaned => "cleaned",
            Self::Abandoned => "gave_up",
        }
    }
}

impl EncodeLabelValue for NudgeOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.label().encode(encoder)
    }
}

/// The labels of a nudge.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct NudgeLabels {
    /// How it ended.
    pub outcome: NudgeOutcome,
}

/// The state of the policy file.
#[derive(Clone, Debug, Default)]
pub struct PolicyMetrics {
    /// 1 while the file is wrong or cannot be read, and an earlier policy is in force.
    pub invalid: Gauge,
}

/// Counted by the controller and by delivery.
#[derive(Clone, Debug)]
pub struct RotationMetrics {
    /// Seconds since the least recently confirmed secret in use was confirmed.
    pub oldest: Gauge<f64, AtomicU64>,
    /// Secrets in use that cannot be confirmed.
    pub failing: Gauge,
    /// New versions fetched.
    pub changes: Counter,
    /// Nudges, by outcome.
    pub nudges: Family<NudgeLabels, Counter>,
    /// Seconds from an observed change to the last volume of the node.
    pub delivery: Histogram,
    /// 1 while this process is the leader.
    pub leader: Gauge,
    /// Secrets that the leader polls.
    pub planned: Gauge,
    /// Seconds by which the leader's next poll is late.
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
        // Initialized to zero, so that a rate includes the first one.
        for outcome in NudgeOutcome::ALL {
            drop(new.nudges.get_or_create(&NudgeLabels { outcome }));
        }
        registry.register_with_unit(
            "rotation_oldest_unconfirmed",
            "Time since the least recently confirmed secret in use was confirmed",
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
            "Nudges (calls that make the driver update a volume) by outcome",
            new.nudges.clone(),
        );
        registry.register_with_unit(
            "rotation_delivery",
            "Time from an observed change to the last volume of the node",
            Unit::Seconds,
            new.delivery.clone(),
        );
        registry.register(
            "rotation_leader",
            "1 while this process is the leader",
            new.leader.clone(),
        );
        registry.register(
            "rotation_planned_secrets",
            "Secrets that the leader polls",
            new.planned.clone(),
        );
        registry.register_with_unit(
            "rotation_behind",
            "Time by which the leader's next poll is late",
            Unit::Seconds,
            new.behind.clone(),
        );
        new
    }
}

/// Reports this process as the leader until it is dropped.
#[derive(Debug)]
pub struct LeaderGauge(RotationMetrics);

impl RotationMetrics {
    /// Reports this process as the leader while the guard exists.
    pub fn lead(&self) -> LeaderGauge {
        self.leader.set(1);
        LeaderGauge(self.clone())
    }

    /// Counts a nudge.
    pub fn nudged(&self, outcome: NudgeOutcome) {
        self.nudges.get_or_create(&NudgeLabels { outcome }).inc();
    }
}

impl Drop for LeaderGauge {
    fn drop(&mut self) {
        self.0.leader.set(0);
        self.0.planned.set(0);
        self.0.behind.set(0.0);
    }
}

/// All families of the process, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Mounts, by outcome and reason.
    pub mounts: Family<MountLabels, Counter>,
    /// Duration of a Mount in seconds.
    pub mount_seconds: Histogram,
    /// Requests to the cache, by result.
    pub cache: Family<CacheLabels, Counter>,
    /// Bytes of cached values.
    pub cache_bytes: Gauge,
    /// Mounted volumes whose ServiceAccount no longer lists their secrets.
    pub revoked_volumes: Gauge,
    /// Counted by the cloud client.
    pub cloud: CloudMetrics,
    /// Counted by the controller and by delivery.
    pub rotation: RotationMetrics,
    /// The state of the policy file.
    pub policy: PolicyMetrics,
}

impl Metrics {
    /// New families, at zero.
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
            "Time from a Mount request to its response",
            Unit::Seconds,
            mount_seconds.clone(),
        );
        let cache = Family::<CacheLabels, Counter>::default();
        registry.register(
            "store_requests",
            "Requests to the cache by result",
            cache.clone(),
        );
        let cache_bytes = Gauge::default();
        registry.register_with_unit(
            "store_size",
            "Secret values held in memory",
            Unit::Bytes,
            cache_bytes.clone(),
        );
        let revoked_volumes = Gauge::default();
        registry.register(
            "revoked_volumes",
            "Mounted volumes whose ServiceAccount no longer lists their secrets",
            revoked_volumes.clone(),
        );
        let cloud = CloudMetrics::default();
        registry.register(
            "cloud_calls",
            "Attempts of calls to Huawei Cloud by operation and outcome",
            cloud.calls.clone(),
        );
        registry.register_with_unit(
            "cloud_call_duration",
            "Duration of one attempt of a call to Huawei Cloud",
            Unit::Seconds,
            cloud.seconds.clone(),
        );
        registry.register(
            "cloud_retries",
            "Retries by operation",
            cloud.retries.clone(),
        );
        registry.register_with_unit(
            "credential_expiry_timestamp",
            "Unix time at which the temporary credentials in use expire",
            Unit::Seconds,
            cloud.credential_expiry.clone(),
        );
        let rotation = RotationMetrics::register(&mut registry);
        let policy = PolicyMetrics::default();
        registry.register(
            "policy_invalid",
            "1 while the policy file is wrong or cannot be read, and an earlier policy is in force",
            policy.invalid.clone(),
        );
        Arc::new(Self {
            registry,
            mounts,
            mount_seconds,
            cache,
            cache_bytes,
            revoked_volumes,
            cloud,
            rotation,
            policy,
        })
    }

    /// The families as OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
