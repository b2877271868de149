//! The metric families, registered once and handed to the parts that count.
//!
//! No label ever holds the name of a secret, a pod or a namespace: their number has no bound, and
//! metrics are readable by more people than pods are.

use std::sync::Arc;

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
        Arc::new(Self {
            registry,
            mounts,
            mount_seconds,
            store,
            store_bytes,
            cloud,
        })
    }

    /// The families in OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
