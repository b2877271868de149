//! The components of the demo: a cloud, an API server, and a node with provider and driver.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, NewSecret, SecretValue, Turn, tcp,
};
use crate::serve::{self, Dependencies, RotationConfig, ServeConfig, ServerHandle};
use crate::sim::csi_driver::csi::{Csi, NAME, Serving};
use crate::sim::csi_driver::{Driver, DriverConfig, PodVolume};
use crate::sim::huawei::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use crate::sim::kubernetes::ApiServer;
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;

/// The manifest that the demo mounts, which users can start from.
pub(super) const EXAMPLE_FILE: &str = "manifests/examples/database-password.yaml";
const EXAMPLE_TEXT: &str = include_str!("../../../manifests/examples/database-password.yaml");
pub(super) const SECRET: &str = "shop-db";
const SERVICE_ACCOUNT: &str = "shop";
const NODE: &str = "demo";
/// Poll interval of the demo; `rotation_poll_interval` must be at least one minute.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// The driver's `rotationPollInterval`, as set by the chart.
pub(super) const DRIVER_INTERVAL: Duration = Duration::from_secs(1);
/// How long a step of the demo may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const REVISIONS: &str = "secretrevisions.dew-provider.io";
const CLASSES: &str = "secretproviderclasses.secrets-store.csi.x-k8s.io";

/// The running components.
pub(super) struct Demo {
    pub(super) emulator: Emulator,
    pub(super) provider: ServerHandle,
    pub(super) csi: Csi,
    pub(super) pods: PathBuf,
    api: ApiServer,
    class: Value,
    csms: Csms,
    caller: Caller,
    _serving: Serving,
}

impl Demo {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let emulator = Emulator::start(listener, Config::default(), clock.clone())?;
        let (providers, driver_socket) = (folder.join("providers"), folder.join("csi.sock"));
        let qps = NonZeroU32::new(100).context("not zero")?;
        let endpoints = CloudConfig::emulated(&emulator.url());
        let class = example_class()?;
        let api = ApiServer::new();
        api.put(CLASSES, class.clone());
        api.put(
            "serviceaccounts",
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {
                    "namespace": "default", "name": SERVICE_ACCOUNT,
                    "annotations": {"cce.io/dew-resource": json!([SECRET]).to_string()},
                },
            }),
        );
        let config = ServeConfig {
            region: Some(DEMO_REGION.parse()?),
            interval: INTERVAL,
            rotation: Some(RotationConfig {
                qps,
                spread: Duration::from_millis(100),
                driver_socket: Some(driver_socket.clone()),
                ..RotationConfig::emulated(NODE)
            }),
            ..ServeConfig::emulated(providers.clone(), endpoints.clone())
        };
        // As on an ECS node, the provider gets its keys of the agency from the metadata service.
        let dependencies = Dependencies {
            env: Env::default(),
            clock: clock.clone(),
            jitter: Jitter::from_system(),
            dial: tcp(),
            kube: Some(api.client()),
        };
        let provider = serve::start(config, dependencies).await?;
        let driver = DriverConfig {
            rotation_poll_interval: DRIVER_INTERVAL,
            ..DriverConfig::new(providers)
        };
        let driver = Arc::new(Driver::new(driver, clock.clone()));
        let csi = Csi::new(driver, api.client(), NODE);
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let metrics = CloudMetrics::default();
        let (env, jitter) = (Env::default(), Jitter::from_system());
        Ok(Self {
            csms: Csms::new(Cloud::new(endpoints, &env, clock, jitter, metrics)?),
            caller: Caller {
                region: DEMO_REGION.parse()?,
                project: Some(DEMO_PROJECT.to_owned()),
                credentials: Credentials::fixed(keys, "the demo's secret owner"),
                turn: Turn::default(),
            },
            _serving: csi.serve(&driver_socket)?,
            emulator,
            provider,
            csi,
            api,
            class,
            pods: folder.join("pods"),
        })
    }

    /// Applies the original class with `from` replaced by `to` in its objects.
    pub(super) fn edit_class(&self, from: &str, to: &str) -> Result<()> {
        let mut class = self.class.clone();
        let objects = &mut class["spec"]["parameters"]["objects"];
        let text = objects
            .as_str()
            .context("the SecretProviderClass has no objects")?;
        ensure!(
            text.contains(from),
            "the SecretProviderClass does not contain {from:?}"
        );
        *objects = json!(text.replace(from, to));
        self.api.put(CLASSES, class);
        Ok(())
    }

    /// Waits until the provider is the leader and has published a SecretRevision.
    pub(super) async fn wait_for_leader(&self) -> Result<()> {
        let end = Instant::now() + STEP_TIMEOUT;
        while self.api.list(REVISIONS).is_empty() {
            ensure!(
                Instant::now() < end,
                "no leader was elected within {STEP_TIMEOUT:?}"
            );
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// The SecretRevisions and Events, as kubectl would show them.
    pub(super) fn status_report(&self) -> String {
        let mut text = String::new();
        for revision in self.api.list(REVISIONS) {
            let (spec, status) = (&revision["spec"], &revision["status"]);
            let ready = &status["conditions"][0];
            text += &format!(
                "   SecretRevision: {} {} Ready={} ({})\n",
                spec["secret"], status["version"], ready["status"], ready["reason"]
            );
        }
        for event in self.api.list("events.events.k8s.io") {
            let name = event["regarding"]["name"].as_str().unwrap_or_default();
            let (reason, note) = (&event["reason"], event["note"].as_str().unwrap_or_default());
            text += &format!("   Event for {name}: {reason} {note}\n");
        }
        text
    }

    pub(super) async fn create(&self, value: &str) -> Result<()> {
        let new = NewSecret {
            name: SECRET.to_owned(),
            kms_key_id: None,
            description: Some("database login of the shop".to_owned()),
            value: SecretValue::Text(value.to_owned().into()),
        };
        let deadline = Instant::now() + STEP_TIMEOUT;
        self.csms.create_secret(&self.caller, new, deadline).await?;
        Ok(())
    }

    pub(super) async fn put(&self, value: &str) -> Result<()> {
        let value = SecretValue::Text(value.to_owned().into());
        let deadline = Instant::now() + STEP_TIMEOUT;
        self.csms
            .create_secret_version(&self.caller, SECRET, value, &[], deadline)
            .await?;
        Ok(())
    }

    /// Creates a pod with one volume, `secrets`, that is scheduled on the node and running.
    pub(super) fn pod(&self, name: &str) -> PodVolume {
        self.api.put(
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "default", "name": name, "uid": name},
                "spec": {
                    "nodeName": NODE, "serviceAccountName": SERVICE_ACCOUNT, "containers": [],
                    "volumes": [{"name": "secrets", "csi": {
                        "driver": NAME, "readOnly": true,
                        "volumeAttributes": {"secretProviderClass": "shop-db"},
                    }}],
                },
                "status": {"phase": "Running", "containerStatuses": [{
                    "name": "shop", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {}},
                }]},
            }),
        );
        PodVolume {
            namespace: "default".to_owned(),
            pod: name.to_owned(),
            uid: name.to_owned(),
            service_account: SERVICE_ACCOUNT.to_owned(),
            class: "shop-db".to_owned(),
            target_path: self.pods.join(name).join("secrets/mount"),
            ..PodVolume::default()
        }
    }

    /// Publishes the volume of a pod as kubelet does, and returns how long it took.
    pub(super) async fn mount(&self, pod: &PodVolume) -> Result<Duration> {
        let begun = Instant::now();
        self.csi
            .publish_as_kubelet(pod)
            .await
            .map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        Ok(begun.elapsed())
    }

    /// Waits until the volume contains this password.
    pub(super) async fn wait_for(&self, pod: &PodVolume, password: &str) -> Result<()> {
        let path = pod.target_path.join("password");
        let end = Instant::now() + STEP_TIMEOUT;
        while std::fs::read_to_string(&path)? != password {
            ensure!(
                Instant::now() < end,
                "the volume was not updated within {STEP_TIMEOUT:?}"
            );
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// The SecretProviderClass of the example.
fn example_class() -> Result<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(EXAMPLE_TEXT)?;
    let mut documents = documents.into_iter();
    let class = documents.find(|document| document["kind"] == "SecretProviderClass");
    class.context("the example contains no SecretProviderClass")
}
