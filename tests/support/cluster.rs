//! A cluster in one process: the cloud, an API server, and nodes, each with its provider and its
//! driver. Nobody looks after volumes as kubelet does unless a test says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{self, Env};
use dew_provider::driver::csi::{Csi, Serving};
use dew_provider::driver::{Driver, DriverConfig, PodVolume};
use dew_provider::emulator::{self, DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY, Emulator};
use dew_provider::provider::authorize::AllowListMode;
use dew_provider::rotation;
use dew_provider::serve::{self, Outside, Running};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::advance;
use tonic::Status;

use super::api_server::{ApiServer, LEASES, RECORDS, REVISIONS};
use super::http;
use super::owner::Owner;
use super::still::{Still, hurry};

/// `rotation_poll_interval` of the nodes.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// A step of time that passes in a cluster, and polls of its sockets within it.
const STEP: Duration = Duration::from_millis(50);
const POLLS: usize = 40;

/// What may differ between clusters.
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) emulator: emulator::Config,
    pub(crate) env: Vec<(&'static str, String)>,
    /// Whether the drivers have their rotation on.
    pub(crate) driver_rotates: bool,
    pub(crate) interval: Duration,
    pub(crate) stale_limit: Duration,
    pub(crate) seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            emulator: emulator::Config::default(),
            env: vec![
                ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY.into()),
                ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY.into()),
            ],
            driver_rotates: true,
            interval: INTERVAL,
            stale_limit: Duration::from_secs(24 * 3600),
            seed: 7,
        }
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) provider: Option<Running>,
    pub(crate) driver: Arc<Driver>,
    pub(crate) csi: Csi,
    folder: PathBuf,
    seed: u64,
    is_cut: Arc<AtomicBool>,
    _serving: Serving,
}

impl Node {
    /// Takes away its way to the cloud, or gives it back.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// What is connected already stays so until it was idle for a while.
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

/// The cluster. Time stands still in it, except within its own methods.
pub(crate) struct Cluster {
    pub(crate) emulator: Emulator,
    pub(crate) api: ApiServer,
    pub(crate) nodes: Vec<Node>,
    setup: Setup,
    owner: Owner,
    clock: Clock,
    _folder: tempfile::TempDir,
    _still: Still,
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

    /// With so many nodes.
    pub(crate) async fn of(nodes: usize) -> Self {
        let rest = Setup::default();
        Self::with(Setup { nodes, ..rest }).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let still = Still::new();
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Clock::from_tokio(start);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, setup.emulator.clone(), clock.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let api = ApiServer::default();
        let owner = Owner::new(endpoints(&emulator), emulator.url(), clock.clone());
        let mut cluster = Self {
            emulator,
            api,
            nodes: Vec::new(),
            owner,
            clock,
            setup,
            _folder: folder,
            _still: still,
        };
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
        let config = serve::Config {
            socket_dir: node.folder.join("providers"),
            provider_names: vec!["cce".into()],
            region: Some(DEMO_REGION.parse().unwrap()),
            project: None,
            interval: self.setup.interval,
            stale_limit: self.setup.stale_limit,
            store_dir: None,
            allow_list: AllowListMode::Required,
            cloud: endpoints(&self.emulator),
            rotation: Some(rotation::Config {
                qps: 5.try_into().unwrap(),
                spread: 5 * SECOND,
                node_name: Some(node.name.clone()),
                namespace: "kube-system".into(),
                driver_socket: Some(node.folder.join("csi.sock")),
            }),
            admin_address: Some("127.0.0.1:0".parse().unwrap()),
        };
        let outside = Outside {
            env: Env::from_pairs(self.setup.env.clone()),
            clock: self.clock.clone(),
            jitter: Jitter::seeded(node.seed),
            dial: node.dial(),
            kube: Some(self.api.0.client()),
        };
        let provider = hurry(serve::start(config, outside)).await.unwrap();
        node.provider = Some(provider);
    }

    /// Ends a node's provider as a signal does, and starts it anew.
    pub(crate) async fn restart(&mut self, index: usize) {
        let mut node = self.nodes.remove(index);
        hurry(node.provider.take().unwrap().stop()).await;
        self.start(&mut node).await;
        self.nodes.insert(index, node);
    }

    /// Lets this much time pass, with everything at work.
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

    /// Lets time pass until `is_so`, at most so much; tells how much it took.
    pub(crate) async fn until(&self, most: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
        let mut took = Duration::ZERO;
        while !is_so() {
            assert!(took < most, "it did not come within {most:?}");
            self.live(STEP).await;
            took += STEP;
        }
        took
    }

    /// Applies a class in `default`, and a ServiceAccount of the same name with this list.
    pub(crate) fn apply(&self, name: &str, parameters: &[(&str, &str)], allowed: &[&str]) {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        self.api.put_class("default", name, &parameters);
        let list = json!(allowed).to_string();
        self.api.put_account("default", name, Some(&list));
    }

    /// A class of one object.
    pub(crate) fn apply_one(&self, class: &str, secret: &str, selector: &str) {
        let objects = format!("- {{objectName: {secret}, objectType: csms, {selector}}}");
        self.apply(class, &[("objects", &objects)], &[secret]);
    }

    /// A pod that runs on a node, with a volume of the class of the same name.
    pub(crate) async fn pod(&self, node: usize, class: &str, uid: &str) -> PodVolume {
        let pod = self.scheduled(node, class, uid);
        self.publish(node, &pod).await.unwrap();
        pod
    }

    /// A pod whose volume is not mounted yet.
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

    /// The pod's object; `metadata` is added to it.
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
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        if metadata["deletionTimestamp"].is_string() {
            object["status"]["containerStatuses"][0]["state"] =
                json!({"terminated": {"exitCode": 0}});
        }
        self.api.0.put("pods", object);
    }

    /// As kubelet has a volume filled.
    pub(crate) async fn publish(&self, node: usize, pod: &PodVolume) -> Result<(), Status> {
        hurry(self.nodes[node].csi.publish_as_kubelet(pod)).await
    }

    /// As kubelet ends a pod: its volume first, then its object.
    pub(crate) fn end_pod(&self, node: usize, pod: &PodVolume) {
        let driver = &self.nodes[node].driver;
        driver.node_unpublish_volume(&pod.target_path).unwrap();
        self.api.0.remove("pods", &pod.namespace, &pod.pod);
        let record = format!("{}-{}-{}", pod.pod, pod.namespace, pod.class);
        self.api.0.remove(RECORDS, &pod.namespace, &record);
    }

    /// The only SecretRevision of a secret.
    pub(crate) fn revision(&self, secret: &str) -> Option<Value> {
        let mut found = self.api.0.list(REVISIONS);
        found.retain(|revision| revision["spec"]["secret"] == secret);
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    }

    /// Who holds the Lease.
    pub(crate) fn leader(&self) -> String {
        let leases = self.api.0.list(LEASES);
        let holder = leases.first().map(|l| l["spec"]["holderIdentity"].clone());
        let holder = holder.unwrap_or_default();
        let name = holder.as_str().unwrap_or_default();
        name.split('_').next().unwrap().to_owned()
    }

    /// Events with this reason, as `name: note`.
    pub(crate) fn told(&self, reason: &str) -> Vec<String> {
        let mut events = self.api.events();
        events.retain(|event| event["reason"] == reason);
        let text = |event: &Value| {
            let name = event["regarding"]["name"].as_str().unwrap();
            format!("{name}: {}", event["note"].as_str().unwrap())
        };
        events.iter().map(text).collect()
    }

    /// A value of a node's `/metrics`.
    pub(crate) async fn metric(&self, node: usize, name: &str) -> f64 {
        let address = self.nodes[node].provider.as_ref().unwrap().admin_address;
        let url = format!("http://{}/metrics", address.unwrap());
        let text = hurry(http::get(&url)).await.text();
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

fn endpoints(emulator: &Emulator) -> cloud::Config {
    let many = 1000.try_into().unwrap();
    cloud::Config {
        csms_endpoint: Some(emulator.url()),
        iam_endpoint: Some(emulator.url()),
        metadata_endpoint: Some(emulator.url()),
        qps: many,
        burst: many,
        ..cloud::Config::default()
    }
}

/// What a pod reads; nothing where there is no such file.
pub(crate) fn read(pod: &PodVolume, path: &str) -> String {
    std::fs::read_to_string(pod.target_path.join(path)).unwrap_or_default()
}
