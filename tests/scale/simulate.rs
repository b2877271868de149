//! A cluster without a network, in paused time: the emulated cloud, an API server, and nodes whose
//! pods have mounted their secrets. Nothing but tokio's clock decides when something happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dew_provider::apiserver::ApiServer;
use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, Config, Credentials, Dial, Env, NewSecret, SecretValue, Socket,
};
use dew_provider::emulator::{
    self, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::observe::metrics::CloudMetrics;
use dew_provider::proto::MountRequest;
use dew_provider::proto::csi_driver_provider_server::CsiDriverProvider;
use dew_provider::provider::authorize::AllowListMode;
use dew_provider::rotation;
use dew_provider::serve::{self, Outside, Running};
use futures::StreamExt;
use futures::stream;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// `rotation_poll_interval`'s default.
pub(crate) const INTERVAL: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);
/// Different secrets in use.
pub(crate) const SECRETS: usize = 200;
/// Secrets of a pod.
const OF_A_POD: usize = 10;
const CLASSES: usize = SECRETS / OF_A_POD;
const NAMESPACE: &str = "default";

/// Calls of the cloud.
#[derive(Debug)]
pub(crate) struct Calls {
    /// ListSecretVersions.
    pub(crate) questions: usize,
    /// ShowSecretVersion.
    pub(crate) values: usize,
}

/// What a new version of one secret led to.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) values: usize,
    pub(crate) most_in_a_second: usize,
    /// Until the last node had it.
    pub(crate) took: Duration,
}

/// The cluster.
pub(crate) struct Simulation {
    emulator: Arc<Emulator>,
    nodes: Vec<Running>,
    cloud: Cloud,
    owner: Caller,
    _folder: tempfile::TempDir,
}

impl Simulation {
    /// So many nodes with so many pods each, all mounted.
    pub(crate) async fn start(nodes: usize, pods: usize) -> Self {
        Self::among(nodes, pods, nodes, || ()).await
    }

    /// The same in a cluster of which `recorded` nodes have pods; calls `surroundings` when all but
    /// the nodes is there.
    pub(crate) async fn among(
        nodes: usize,
        pods: usize,
        recorded: usize,
        surroundings: impl FnOnce(),
    ) -> Self {
        let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
        let emulator = Emulator::in_memory(emulator::Config::default(), clock.clone()).unwrap();
        let emulator = Arc::new(emulator);
        let folder = tempfile::tempdir().unwrap();
        // Thousands of clients need not each read the system's certificates.
        let ca = folder.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap();
        std::fs::write(&ca, certificate.self_signed(&key).unwrap().pem()).unwrap();
        let many = 100_000.try_into().unwrap();
        let config = Config {
            csms_endpoint: Some(emulator.url()),
            iam_endpoint: Some(emulator.url()),
            metadata_endpoint: Some(emulator.url()),
            ca_bundle: Some(ca),
            qps: many,
            burst: many,
            home: None,
        };
        let dial = dial(&emulator);
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let mut cluster = Self {
            cloud: Cloud::with_dial(
                config.clone(),
                &env,
                clock.clone(),
                Jitter::seeded(1),
                metrics,
                Arc::clone(&dial),
            )
            .unwrap(),
            owner: Caller {
                region: DEMO_REGION.parse().unwrap(),
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "the owner"),
            },
            emulator,
            nodes: Vec::new(),
            _folder: folder,
        };
        cluster.create_secrets().await;
        let api = ApiServer::new();
        let classes: Vec<String> = (0..CLASSES).map(objects).collect();
        put_objects(&api, &classes, recorded, pods);
        surroundings();
        for node in 0..nodes {
            let config = cluster.config(node, config.clone());
            let outside = Outside {
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
                .push(serve::start(config, outside).await.unwrap());
        }
        cluster.mount_all(&classes, pods).await;
        cluster
    }

    fn config(&self, node: usize, cloud: Config) -> serve::Config {
        serve::Config {
            socket_dir: self._folder.path().join(node.to_string()),
            provider_names: vec!["cce".into()],
            region: Some(DEMO_REGION.parse().unwrap()),
            project: Some(DEMO_PROJECT.into()),
            interval: INTERVAL,
            stale_limit: Duration::from_secs(24 * 3600),
            store_dir: None,
            allow_list: AllowListMode::Required,
            cloud,
            // The driver's part is not simulated: volumes are looked after by nobody.
            rotation: Some(rotation::Config {
                qps: 5.try_into().unwrap(),
                spread: Duration::from_secs(5),
                node_name: Some(node_name(node)),
                namespace: "kube-system".into(),
                driver_socket: None,
            }),
            admin_address: None,
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
            self.cloud
                .create_secret(&self.owner, new, deadline)
                .await
                .unwrap();
        }
    }

    async fn mount_all(&self, classes: &[String], pods: usize) {
        let filled = self
            .nodes
            .iter()
            .enumerate()
            .map(|(node, running)| async move {
                for pod in 0..pods {
                    let class = (node + pod) % CLASSES;
                    let request = mount(node, pod, class, &classes[class]);
                    running.provider.mount(request).await.unwrap();
                }
            });
        stream::iter(filled)
            .buffer_unordered(64)
            .collect::<()>()
            .await;
    }

    /// Lets the leader get to know everything.
    pub(crate) async fn settle(&self) {
        sleep(2 * INTERVAL).await;
    }

    pub(crate) async fn calls_within(&self, time: Duration) -> Calls {
        self.emulator.clear_calls();
        sleep(time).await;
        Calls {
            questions: self.emulator.answers("ListSecretVersions").len(),
            values: self.emulator.answers("ShowSecretVersion").len(),
        }
    }

    /// Puts a new version of one secret and waits until it is on every node.
    pub(crate) async fn change_one(&self) -> Change {
        self.emulator.clear_calls();
        let value = SecretValue::Text("another".to_owned().into());
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(30);
        self.cloud
            .create_secret_version(&self.owner, &name(0), value, &[], deadline)
            .await
            .unwrap();
        let mut change = Change {
            values: 0,
            most_in_a_second: 0,
            took: Duration::ZERO,
        };
        let longest = INTERVAL + Duration::from_secs(self.nodes.len() as u64 / 5 + 30);
        // A little longer than the last one, in case that there are more.
        let is_over = |change: &Change| {
            change.values >= self.nodes.len() && begun.elapsed() > change.took + SECOND * 10
        };
        while begun.elapsed() < longest && !is_over(&change) {
            sleep(SECOND).await;
            let values = self.emulator.answers("ShowSecretVersion").len();
            if values > change.values {
                change.took = begun.elapsed();
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
    let secrets = class * OF_A_POD..(class + 1) * OF_A_POD;
    secrets
        .map(|secret| {
            let name = name(secret);
            format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n")
        })
        .collect()
}

/// Classes, their ServiceAccount, and the driver's record of each pod.
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

/// What the driver sends.
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
