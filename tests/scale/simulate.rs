//! A cluster without a network, in paused time: the emulator, an API server, and nodes whose pods have
//! mounted their secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, Dial, NewSecret, SecretValue,
    Socket, Turn,
};
use dew_provider::proto::MountRequest;
use dew_provider::proto::csi_driver_provider_server::CsiDriverProvider;
use dew_provider::serve::{self, Dependencies, RotationConfig, ServeConfig, ServerHandle};
use dew_provider::sim::huawei::{
    self, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::sim::kubernetes::ApiServer;
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use futures::StreamExt;
use futures::stream;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// The default of `rotation_poll_interval`.
pub(crate) const INTERVAL: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);
/// Number of different secrets.
pub(crate) const SECRETS: usize = 200;
/// Number of secrets in each pod.
const SECRETS_PER_POD: usize = 10;
const CLASSES: usize = SECRETS / SECRETS_PER_POD;
const NAMESPACE: &str = "default";

/// Calls to the cloud.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Calls of ListSecretVersions.
    pub(crate) polls: usize,
    /// Calls of ShowSecretVersion.
    pub(crate) values: usize,
}

/// The effects of a new version of one secret.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) values: usize,
    pub(crate) most_in_a_second: usize,
    /// Time until the last node fetched it.
    pub(crate) took: Duration,
}

/// The cluster.
pub(crate) struct Simulation {
    emulator: Arc<Emulator>,
    nodes: Vec<ServerHandle>,
    csms: Csms,
    owner: Caller,
    dir: tempfile::TempDir,
}

impl Simulation {
    /// Starts `nodes` nodes and mounts `pods` pods on each.
    pub(crate) async fn start(nodes: usize, pods: usize) -> Self {
        Self::start_with_records(nodes, pods, nodes, || ()).await
    }

    /// Like [`start`](Self::start), but the API server has the pod records of `recorded_nodes` nodes.
    /// Calls `before_nodes` once everything but the nodes has started.
    pub(crate) async fn start_with_records(
        nodes: usize,
        pods: usize,
        recorded_nodes: usize,
        before_nodes: impl FnOnce(),
    ) -> Self {
        let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
        let emulator = Emulator::in_memory(huawei::Config::default(), clock.clone()).unwrap();
        let emulator = Arc::new(emulator);
        let dir = tempfile::tempdir().unwrap();
        // Spares thousands of clients from each reading the system's certificates.
        let ca = dir.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap();
        std::fs::write(&ca, certificate.self_signed(&key).unwrap().pem()).unwrap();
        let config = CloudConfig {
            ca_bundle: Some(ca),
            ..CloudConfig::emulated(&emulator.url())
        };
        let dial = dial(&emulator);
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let mut cluster = Self {
            csms: Csms::new(
                Cloud::with_dial(
                    config.clone(),
                    &env,
                    clock.clone(),
                    Jitter::seeded(1),
                    metrics,
                    Arc::clone(&dial),
                )
                .unwrap(),
            ),
            owner: Caller {
                region: DEMO_REGION.parse().unwrap(),
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "the owner"),
                turn: Turn::default(),
            },
            emulator,
            nodes: Vec::new(),
            dir,
        };
        cluster.create_secrets().await;
        let api = ApiServer::new();
        let classes: Vec<String> = (0..CLASSES).map(objects).collect();
        put_objects(&api, &classes, recorded_nodes, pods);
        before_nodes();
        for node in 0..nodes {
            let config = cluster.config(node, config.clone());
            let dependencies = Dependencies {
                env: Env::from_pairs([
                    ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
                    ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
                ]),
                clock: clock.clone(),
                jitter: Jitter::seeded(node as u64),
                dial: Arc::clone(&dial),
                kube: Some(api.client()),
            };
            cluster
                .nodes
                .push(serve::start(config, dependencies).await.unwrap());
        }
        cluster.mount_all(&classes, pods).await;
        cluster
    }

    fn config(&self, node: usize, cloud: CloudConfig) -> ServeConfig {
        let socket_dir = self.dir.path().join(node.to_string());
        ServeConfig {
            region: Some(DEMO_REGION.parse().unwrap()),
            project: Some(DEMO_PROJECT.into()),
            // Without a driver socket, volumes are never nudged.
            rotation: Some(RotationConfig::emulated(&node_name(node))),
            admin_address: None,
            ..ServeConfig::emulated(socket_dir, cloud)
        }
    }

    async fn create_secrets(&self) {
        for secret in 0..SECRETS {
            let new = NewSecret {
                name: name(secret),
                kms_key_id: None,
                description: None,
                value: SecretValue::Text(format!("{:032}", secret).into()),
            };
            let deadline = Instant::now() + Duration::from_secs(30);
            self.csms
                .create_secret(&self.owner, new, deadline)
                .await
                .unwrap();
        }
    }

    async fn mount_all(&self, classes: &[String], pods: usize) {
        let mounts = self
            .nodes
            .iter()
            .enumerate()
            .map(|(node, handle)| async move {
                for pod in 0..pods {
                    let class = (node + pod) % CLASSES;
                    let request = mount(node, pod, class, &classes[class]);
                    handle.service.mount(request).await.unwrap();
                }
            });
        stream::iter(mounts)
            .buffer_unordered(64)
            .collect::<()>()
            .await;
    }

    /// Waits until the leader has polled every secret.
    pub(crate) async fn settle(&self) {
        sleep(2 * INTERVAL).await;
    }

    pub(crate) async fn calls_within(&self, time: Duration) -> Calls {
        self.emulator.clear_calls();
        sleep(time).await;
        Calls {
            polls: self.emulator.answers("ListSecretVersions").len(),
            values: self.emulator.answers("ShowSecretVersion").len(),
        }
    }

    /// Puts a new version of one secret and waits until every node fetched it.
    pub(crate) async fn change_one(&self) -> Change {
        self.emulator.clear_calls();
        let value = SecretValue::Text("another".to_owned().into());
        let start = Instant::now();
        let deadline = start + Duration::from_secs(30);
        self.csms
            .create_secret_version(&self.owner, &name(0), value, &[], deadline)
            .await
            .unwrap();
        let mut change = Change {
            values: 0,
            most_in_a_second: 0,
            took: Duration::ZERO,
        };
        let timeout = INTERVAL + Duration::from_secs(self.nodes.len() as u64 / 5 + 30);
        // Waits another 10 s for unexpected extra calls.
        let is_done = |change: &Change| {
            change.values >= self.nodes.len() && start.elapsed() > change.took + SECOND * 10
        };
        while start.elapsed() < timeout && !is_done(&change) {
            sleep(SECOND).await;
            let values = self.emulator.answers("ShowSecretVersion").len();
            if values > change.values {
                change.took = start.elapsed();
                change.most_in_a_second = change.most_in_a_second.max(values - change.values);
                change.values = values;
            }
        }
        change
    }
}

fn dial(emulator: &Arc<Emulator>) -> Dial {
    let emulator = Arc::clone(emulator);
    Arc::new(move |_| {
        let stream = emulator.connect();
        Box::pin(async move { Ok(Socket::new(stream)) })
    })
}

fn name(secret: usize) -> String {
    format!("secret-{secret}")
}

fn node_name(node: usize) -> String {
    format!("node-{node}")
}

/// The `objects` of a class.
fn objects(class: usize) -> String {
    let secrets = class * SECRETS_PER_POD..(class + 1) * SECRETS_PER_POD;
    secrets
        .map(|secret| {
            let name = name(secret);
            format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n")
        })
        .collect()
}

/// Puts the classes, their ServiceAccount, and the driver's record of each pod.
fn put_objects(api: &ApiServer, classes: &[String], nodes: usize, pods: usize) {
    for (class, objects) in classes.iter().enumerate() {
        let object = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": NAMESPACE, "name": format!("class-{class}")},
            "spec": {"provider": "cce", "parameters": {"objects": objects}},
        });
        api.put("secretproviderclasses.secrets-store.csi.x-k8s.io", object);
    }
    let all: Vec<String> = (0..SECRETS).map(name).collect();
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {
            "namespace": NAMESPACE, "name": "app",
            "annotations": {"cce.io/dew-resource": json!(all).to_string()},
        },
    });
    api.put("serviceaccounts", account);
    for node in 0..nodes {
        for pod in 0..pods {
            let class = (node + pod) % CLASSES;
            let record = json!({
                "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
                "metadata": {
                    "namespace": NAMESPACE, "name": format!("p-{node}-{pod}-{NAMESPACE}-class-{class}"),
                    "labels": {"internal.secrets-store.csi.k8s.io/node-name": node_name(node)},
                },
                "status": {"secretProviderClassName": format!("class-{class}"), "mounted": true},
            });
            let resource = "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io";
            api.put(resource, record);
        }
    }
}

/// The Mount that the driver sends for a pod.
fn mount(node: usize, pod: usize, class: usize, objects: &str) -> tonic::Request<MountRequest> {
    let uid = format!("uid-{node}-{pod}");
    let attributes: BTreeMap<&str, String> = [
        ("objects", objects.to_owned()),
        ("secretProviderClass", format!("class-{class}")),
        ("csi.storage.k8s.io/pod.name", format!("p-{node}-{pod}")),
        ("csi.storage.k8s.io/pod.namespace", NAMESPACE.to_owned()),
        ("csi.storage.k8s.io/pod.uid", uid.clone()),
        ("csi.storage.k8s.io/serviceAccount.name", "app".to_owned()),
    ]
    .into();
    tonic::Request::new(MountRequest {
        attributes: serde_json::to_string(&attributes).unwrap(),
        secrets: "null".into(),
        target_path: format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/v/mount"),
        permission: "420".into(),
        current_object_version: Vec::new(),
    })
}
