//! A cluster in one process: the cloud, an API server, and nodes, each with its provider and CSI
//! driver. Volumes are not remounted periodically, as kubelet would, unless a test does so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dew_provider::cloud::{self, CloudConfig};
use dew_provider::serve::{self, Dependencies, RotationConfig, ServeConfig, ServerHandle};
use dew_provider::sim::csi_driver::csi::{Csi, Serving};
use dew_provider::sim::csi_driver::{Driver, DriverConfig, PodVolume};
use dew_provider::sim::huawei::{self, DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY, Emulator};
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::advance;
use tonic::Status;

use super::api_server::{ApiServer, LEASES, RECORDS, REVISIONS};
use super::http;
use super::owner::Owner;
use super::paused_clock::{PausedClock, drive};

/// `rotation_poll_interval` of the nodes.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// One step of [`Cluster::live`], and how often the tasks are polled within it.
const STEP: Duration = Duration::from_millis(50);
const POLLS: usize = 40;

/// The settings of a cluster.
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) emulator: huawei::Config,
    pub(crate) env: Vec<(&'static str, String)>,
    /// Whether rotation is enabled in the drivers.
    pub(crate) driver_rotates: bool,
    pub(crate) interval: Duration,
    pub(crate) stale_limit: Duration,
    pub(crate) seed: u64,
    /// The text of the policy file.
    pub(crate) policy: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            emulator: huawei::Config::default(),
            env: vec![
                ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY.into()),
                ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY.into()),
            ],
            driver_rotates: true,
            interval: INTERVAL,
            stale_limit: Duration::from_secs(24 * 3600),
            seed: 7,
            policy: None,
        }
    }
}

/// A node with its provider and its CSI driver.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) provider: Option<ServerHandle>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) csi: Csi,
    folder: PathBuf,
    seed: u64,
    is_cut: Arc<AtomicBool>,
    _serving: Serving,
}

impl Node {
    /// Cuts the node off from the cloud, or reconnects it.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Fails new connections while the node is cut off; an open one lasts until it has been idle for a while.
    fn dial(&self) -> cloud::Dial {
        let (tcp, is_cut) = (cloud::tcp(), Arc::clone(&self.is_cut));
        Arc::new(move |uri| {
            if is_cut.load(Ordering::Relaxed) {
                return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
            }
            tcp(uri)
        })
    }
}

/// The cluster. Time advances only inside its methods.
pub(crate) struct Cluster {
    pub(crate) emulator: Emulator,
    pub(crate) api: ApiServer,
    pub(crate) nodes: Vec<Node>,
    setup: Setup,
    owner: Owner,
    clock: Clock,
    _folder: tempfile::TempDir,
    _paused: PausedClock,
}

impl std::ops::Deref for Cluster {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.owner
    }
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// A cluster of this many nodes.
    pub(crate) async fn of(nodes: usize) -> Self {
        let rest = Setup::default();
        Self::with(Setup { nodes, ..rest }).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let paused = PausedClock::new();
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Clock::from_tokio(start);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, setup.emulator.clone(), clock.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let api = ApiServer::default();
        let owner = Owner::new(
            CloudConfig::emulated(&emulator.url()),
            emulator.url(),
            clock.clone(),
        );
        let mut cluster = Self {
            emulator,
            api,
            nodes: Vec::new(),
            owner,
            clock,
            setup,
            _folder: folder,
            _paused: paused,
        };
        if let Some(text) = &cluster.setup.policy {
            cluster.write_policy(text);
        }
        for index in 0..cluster.setup.nodes {
            let node = cluster.node(index).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    async fn node(&self, index: usize) -> Node {
        let folder = self._folder.path().join(format!("n{index}"));
        let config = DriverConfig {
            rotation: self.setup.driver_rotates,
            rotation_poll_interval: SECOND,
            ..DriverConfig::new(folder.join("providers"))
        };
        let driver = Arc::new(Driver::new(config, self.clock.clone()));
        let name = format!("node-{index}");
        let csi = Csi::new(Arc::clone(&driver), self.api.0.client(), &name);
        let mut node = Node {
            _serving: csi.serve(&folder.join("csi.sock")).unwrap(),
            name,
            provider: None,
            driver,
            csi,
            folder,
            seed: self.setup.seed + index as u64,
            is_cut: Arc::default(),
        };
        self.start(&mut node).await;
        node
    }

    /// Starts a node's provider.
    pub(crate) async fn start(&self, node: &mut Node) {
        let cloud = CloudConfig::emulated(&self.emulator.url());
        let config = ServeConfig {
            region: Some(DEMO_REGION.parse().unwrap()),
            interval: self.setup.interval,
            stale_limit: self.setup.stale_limit,
            policy: (self.setup.policy.is_some()).then(|| self.policy_path()),
            rotation: Some(RotationConfig {
                driver_socket: Some(node.folder.join("csi.sock")),
                ..RotationConfig::emulated(&node.name)
            }),
            ..ServeConfig::emulated(node.folder.join("providers"), cloud)
        };
        let dependencies = Dependencies {
            env: Env::from_pairs(self.setup.env.clone()),
            clock: self.clock.clone(),
            jitter: Jitter::seeded(node.seed),
            dial: node.dial(),
            kube: Some(self.api.0.client()),
        };
        let provider = drive(serve::start(config, dependencies)).await.unwrap();
        node.provider = Some(provider);
    }

    fn policy_path(&self) -> PathBuf {
        self._folder.path().join("policy.yaml")
    }

    /// Writes the policy file, which all nodes share and read again within seconds.
    pub(crate) fn write_policy(&self, text: &str) {
        std::fs::write(self.policy_path(), text).unwrap();
    }

    /// Stops a node's provider as a signal does, and starts it again.
    pub(crate) async fn restart(&mut self, index: usize) {
        let mut node = self.nodes.remove(index);
        drive(node.provider.take().unwrap().stop()).await;
        self.start(&mut node).await;
        self.nodes.insert(index, node);
    }

    /// Advances time while all tasks run.
    pub(crate) async fn live(&self, time: Duration) {
        let mut left = time;
        while left > Duration::ZERO {
            settle().await;
            let step = STEP.min(left);
            advance(step).await;
            left -= step;
        }
        settle().await;
    }

    /// Advances time in large steps, so that hours take seconds. Every exchange with the cloud then takes a second
    /// or so.
    pub(crate) async fn skip(&self, time: Duration) {
        const LARGE_STEP: Duration = Duration::from_millis(500);
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            settle().await;
            advance(LARGE_STEP).await;
        }
        settle().await;
    }

    /// Advances time until `is_so` returns true, and returns how long it took: at most `most`.
    pub(crate) async fn until(&self, most: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
        let mut took = Duration::ZERO;
        while !is_so() {
            assert!(
                took < most,
                "the condition did not become true within {most:?}"
            );
            self.live(STEP).await;
            took += STEP;
        }
        took
    }

    /// Applies a class in `default`, and a ServiceAccount of the same name that lists `allowed`.
    pub(crate) fn apply(&self, name: &str, parameters: &[(&str, &str)], allowed: &[&str]) {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        self.api.put_class("default", name, &parameters);
        let list = json!(allowed).to_string();
        self.api.put_account("default", name, Some(&list));
    }

    /// Applies a class with one object, and a ServiceAccount that lists its secret.
    pub(crate) fn apply_one(&self, class: &str, secret: &str, selector: &str) {
        let objects = format!("- {{objectName: {secret}, objectType: csms, {selector}}}");
        self.apply(class, &[("objects", &objects)], &[secret]);
    }

    /// Creates a pod on a node and mounts its volume.
    pub(crate) async fn pod(&self, node: usize, class: &str, uid: &str) -> PodVolume {
        let pod = self.scheduled(node, class, uid);
        self.publish(node, &pod).await.unwrap();
        pod
    }

    /// Creates a pod on a node without mounting its volume. Class and ServiceAccount have the same name.
    pub(crate) fn scheduled(&self, node: usize, class: &str, uid: &str) -> PodVolume {
        let folder = &self.nodes[node].folder;
        let target = format!("pods/{uid}/volumes/kubernetes.io~csi/v/mount");
        let pod = PodVolume {
            namespace: "default".into(),
            pod: format!("{class}-{uid}"),
            uid: uid.into(),
            service_account: class.into(),
            class: class.into(),
            target_path: folder.join(target),
            ..PodVolume::default()
        };
        self.put_pod(node, &pod, json!({}));
        pod
    }

    /// Writes the pod's object with additional `metadata`. With a `deletionTimestamp`, its container has
    /// terminated.
    pub(crate) fn put_pod(&self, node: usize, pod: &PodVolume, metadata: Value) {
        let secret = pod.secrets.as_ref().map(|_| json!({"name": "keys"}));
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": pod.namespace, "name": pod.pod, "uid": pod.uid},
            "spec": {
                "nodeName": self.nodes[node].name, "serviceAccountName": pod.service_account,
                "containers": [],
                "volumes": [{"name": "v", "csi": {
                    "driver": "secrets-store.csi.k8s.io", "readOnly": true,
                    "nodePublishSecretRef": secret,
                    "volumeAttributes": {"secretProviderClass": pod.class},
                }}],
            },
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}},
            }]},
        });
        for (key, value) in &pod.attributes {
            object["spec"]["volumes"][0]["csi"]["volumeAttributes"][key] = json!(value);
        }
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        if metadata["deletionTimestamp"].is_string() {
            object["status"]["containerStatuses"][0]["state"] =
                json!({"terminated": {"exitCode": 0}});
        }
        self.api.0.put("pods", object);
    }

    /// Mounts a volume, or mounts it again, as kubelet does.
    pub(crate) async fn publish(&self, node: usize, pod: &PodVolume) -> Result<(), Status> {
        drive(self.nodes[node].csi.publish_as_kubelet(pod)).await
    }

    /// Removes a pod as kubelet does: first its volume, then its object.
    pub(crate) fn end_pod(&self, node: usize, pod: &PodVolume) {
        let driver = &self.nodes[node].driver;
        driver.node_unpublish_volume(&pod.target_path).unwrap();
        self.api.0.remove("pods", &pod.namespace, &pod.pod);
        let record = format!("{}-{}-{}", pod.pod, pod.namespace, pod.class);
        self.api.0.remove(RECORDS, &pod.namespace, &record);
    }

    /// The SecretRevision of a secret; there must be at most one.
    pub(crate) fn revision(&self, secret: &str) -> Option<Value> {
        let mut found = self.api.0.list(REVISIONS);
        found.retain(|revision| revision["spec"]["secret"] == secret);
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    }

    /// The name of the node that holds the Lease; empty if there is none.
    pub(crate) fn leader(&self) -> String {
        let leases = self.api.0.list(LEASES);
        let holder = leases.first().map(|l| l["spec"]["holderIdentity"].clone());
        let holder = holder.unwrap_or_default();
        let name = holder.as_str().unwrap_or_default();
        name.split('_').next().unwrap().to_owned()
    }

    /// Events with this reason, as `name: note`.
    pub(crate) fn events_with_reason(&self, reason: &str) -> Vec<String> {
        let mut events = self.api.events();
        events.retain(|event| event["reason"] == reason);
        let text = |event: &Value| {
            let name = event["regarding"]["name"].as_str().unwrap();
            format!("{name}: {}", event["note"].as_str().unwrap())
        };
        events.iter().map(text).collect()
    }

    /// The value of a metric without labels in a node's `/metrics`.
    pub(crate) async fn metric(&self, node: usize, name: &str) -> f64 {
        let address = self.nodes[node].provider.as_ref().unwrap().admin_address;
        let url = format!("http://{}/metrics", address.unwrap());
        let text = drive(http::get(&url)).await.text();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

async fn settle() {
    for _ in 0..POLLS {
        yield_now().await;
    }
}

/// The contents of a file in a pod's volume; empty if the file does not exist.
pub(crate) fn read(pod: &PodVolume, path: &str) -> String {
    std::fs::read_to_string(pod.target_path.join(path)).unwrap_or_default()
}
