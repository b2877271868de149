//! What the demo is made of: a cloud, an API server, a node with provider and driver.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::clock::{Clock, Jitter};
use crate::cloud::{self, AccessKeys, Caller, Cloud, Credentials, Env, NewSecret, SecretValue};
use crate::driver::csi::{Csi, NAME, Serving};
use crate::driver::{Driver, DriverConfig, PodVolume};
use crate::emulator::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use crate::lint::manifest::example_class;
use crate::observe::metrics::CloudMetrics;
use crate::provider::authorize::AllowListMode;
use crate::rotation;
use crate::serve::{self, Outside, Running};

/// The manifest that the demo mounts; users start from it too.
pub(super) const EXAMPLE_FILE: &str = "manifests/examples/database-password.yaml";
const EXAMPLE_TEXT: &str = include_str!("../../../manifests/examples/database-password.yaml");
pub(super) const SECRET: &str = "shop-db";
const ACCOUNT: &str = "shop";
const NODE: &str = "demo";
/// Stands in for `rotation_poll_interval`, whose least is a minute.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// As `--stale-limit`'s default.
const STALE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// As the chart sets the driver's.
pub(super) const DRIVER_INTERVAL: Duration = Duration::from_secs(1);
/// What any step may take before the demo says that it failed.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
const REVISIONS: &str = "secretrevisions.dew-provider.io";
const CLASSES: &str = "secretproviderclasses.secrets-store.csi.x-k8s.io";

/// The parts, as they run.
pub(super) struct Demo {
    pub(super) emulator: Emulator,
    pub(super) provider: Running,
    pub(super) csi: Csi,
    pub(super) pods: PathBuf,
    api: ApiServer,
    class: Value,
    cloud: Cloud,
    owner: Caller,
    _serving: Serving,
}

impl Demo {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let emulator = Emulator::start(listener, Config::default(), clock.clone())?;
        let (providers, driver_socket) = (folder.join("providers"), folder.join("csi.sock"));
        let qps = NonZeroU32::new(100).context("not zero")?;
        let endpoints = cloud::Config {
            csms_endpoint: Some(emulator.url()),
            iam_endpoint: Some(emulator.url()),
            metadata_endpoint: Some(emulator.url()),
            qps,
            burst: qps,
            ..cloud::Config::default()
        };
        let class = example_class(EXAMPLE_TEXT).context("the example has no class")?;
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": class.namespace, "name": class.name},
            "spec": {"provider": "cce", "parameters": class.parameters},
        });
        let api = ApiServer::new();
        api.put(CLASSES, class.clone());
        api.put(
            "serviceaccounts",
            json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {
                    "namespace": "default", "name": ACCOUNT,
                    "annotations": {"cce.io/dew-resource": json!([SECRET]).to_string()},
                },
            }),
        );
        let config = serve::Config {
            socket_dir: providers.clone(),
            provider_names: vec!["cce".to_owned()],
            region: Some(DEMO_REGION.parse()?),
            project: None,
            interval: INTERVAL,
            stale_limit: STALE_LIMIT,
            store_dir: None,
            allow_list: AllowListMode::Required,
            cloud: endpoints.clone(),
            rotation: Some(rotation::Config {
                qps,
                spread: Duration::from_millis(100),
                node_name: Some(NODE.to_owned()),
                namespace: "kube-system".to_owned(),
                driver_socket: Some(driver_socket.clone()),
            }),
            admin_address: Some(([127, 0, 0, 1], 0).into()),
        };
        // The provider gets its keys as on an ECS node: from the agency, by the metadata service.
        let outside = Outside {
            env: Env::default(),
            clock: clock.clone(),
            jitter: Jitter::from_system(),
            dial: cloud::tcp(),
            kube: Some(api.client()),
        };
        let provider = serve::start(config, outside).await?;
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
            cloud: Cloud::new(endpoints, &env, clock, jitter, metrics)?,
            owner: Caller {
                region: DEMO_REGION.parse()?,
                project: Some(DEMO_PROJECT.to_owned()),
                credentials: Credentials::fixed(keys, "the demo's owner of secrets"),
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

    /// Edits the class as it was; what is replaced must be there.
    pub(super) fn edit(&self, from: &str, to: &str) -> Result<()> {
        let mut class = self.class.clone();
        let objects = &mut class["spec"]["parameters"]["objects"];
        let text = objects.as_str().context("the class has no objects")?;
        ensure!(text.contains(from), "the class has no {from:?}");
        *objects = json!(text.replace(from, to));
        self.api.put(CLASSES, class);
        Ok(())
    }

    /// Waits until the provider leads, and looks after the secret.
    pub(super) async fn wait_for_leader(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.api.list(REVISIONS).is_empty() {
            ensure!(Instant::now() < end, "nobody leads");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What `kubectl get srev` and the pod's Events would show.
    pub(super) fn told(&self) -> String {
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
            text += &format!("   Event of {name}: {reason} {note}\n");
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
        let deadline = Instant::now() + PATIENCE;
        self.cloud.create_secret(&self.owner, new, deadline).await?;
        Ok(())
    }

    pub(super) async fn put(&self, value: &str) -> Result<()> {
        let value = SecretValue::Text(value.to_owned().into());
        let deadline = Instant::now() + PATIENCE;
        self.cloud
            .create_secret_version(&self.owner, SECRET, value, &[], deadline)
            .await?;
        Ok(())
    }

    /// A pod with one volume, `secrets`, as the scheduler leaves it.
    pub(super) fn pod(&self, name: &str) -> PodVolume {
        self.api.put(
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "default", "name": name, "uid": name},
                "spec": {
                    "nodeName": NODE, "serviceAccountName": ACCOUNT, "containers": [],
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
            service_account: ACCOUNT.to_owned(),
            class: "shop-db".to_owned(),
            target_path: self.pods.join(name).join("secrets/mount"),
            ..PodVolume::default()
        }
    }

    /// As kubelet has a volume filled.
    pub(super) async fn mount(&self, pod: &PodVolume) -> Result<Duration> {
        let begun = Instant::now();
        self.csi
            .publish_as_kubelet(pod)
            .await
            .map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        Ok(begun.elapsed())
    }

    /// Waits until the volume holds this password.
    pub(super) async fn wait_for(&self, pod: &PodVolume, password: &str) -> Result<()> {
        let path = pod.target_path.join("password");
        let end = Instant::now() + PATIENCE;
        while std::fs::read_to_string(&path)? != password {
            ensure!(Instant::now() < end, "the new version did not arrive");
            sleep(LOOK).await;
        }
        Ok(())
    }
}
