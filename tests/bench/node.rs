//! The provider as a process, its emulated cloud, and the classes it mounts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, NewSecret, SecretValue, Turn,
};
use dew_provider::node::socket;
use dew_provider::proto::{MountRequest, MountResponse};
use dew_provider::sim::huawei::{
    self, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use futures::future::join_all;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use super::process::Process;

/// The number of secrets, of their versions, and of the bytes of a value.
const SECRETS: usize = 20;
const VERSIONS: usize = 20;
const VALUE: usize = 64;
const QPS: &str = "100000";

/// A class with the Mount request of a pod.
pub(crate) struct Class {
    pub(crate) request: MountRequest,
    name: String,
}

pub(crate) struct Node {
    pub(crate) provider: Process,
    pub(crate) idle_echo: Process,
    emulator: Emulator,
    folder: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator =
            Emulator::start(listener, huawei::Config::default(), Clock::system()).unwrap();
        create_secrets(&emulator.url()).await;
        let folder = tempfile::tempdir().unwrap();
        let url = emulator.url();
        let provider = Process::start(
            Command::new(env!("CARGO_BIN_EXE_dew-provider"))
                .args(["serve", "--service-account-allow-list", "off"])
                .args(["--socket-dir", folder.path().to_str().unwrap()])
                .args(["--admin-address", "127.0.0.1:0", "--log-level", "warn"])
                .args([
                    "--region",
                    DEMO_REGION,
                    "--csms-endpoint",
                    &url,
                    "--iam-endpoint",
                    &url,
                ])
                .args(["--csms-qps", QPS, "--csms-burst", QPS])
                .env("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY)
                .env("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY)
                .stderr(std::process::Stdio::null()),
            &folder.path().join("cce.sock"),
        );
        let idle_echo = start_echo(&folder, "idle", &MountResponse::default());
        Self {
            provider,
            idle_echo,
            emulator,
            folder,
        }
    }

    /// A class with the secrets `s0`, `s1` and so on, each as a file.
    pub(crate) async fn class(&self, name: &str, objects: usize, version: &str) -> Class {
        Class {
            request: request(name, "pod", objects, version),
            name: name.to_owned(),
        }
    }

    /// Starts an echo of the provider's response for the class.
    pub(crate) async fn echo(&self, class: &Class) -> Process {
        let response = socket::client(&self.provider.socket)
            .mount(class.request.clone())
            .await;
        start_echo(&self.folder, &class.name, &response.unwrap().into_inner())
    }

    /// The latencies in milliseconds of Mounts without cached versions, with a cloud that responds in
    /// 50 ms: of one object, and of twenty.
    pub(crate) async fn cold(&self) -> (Vec<f64>, Vec<f64>) {
        self.emulator
            .add_faults(r#"{"fault": {"delay_ms": 50}}"#)
            .unwrap();
        let (mut one, mut twenty) = (Vec::new(), Vec::new());
        let mut client = socket::client(&self.provider.socket);
        // Versions that were not fetched before.
        for version in 1..=VERSIONS {
            for (times, objects) in [(&mut one, 1), (&mut twenty, SECRETS)] {
                let kind = if objects == 1 { "single" } else { "all" };
                let name = format!("cold-{kind}-{version}");
                let request = request_of(
                    &name,
                    "pod",
                    (0..objects).map(|i| {
                        // A secret that the twenty do not use, so that it is not cached either.
                        let secret = if objects == 1 {
                            "single".to_owned()
                        } else {
                            format!("s{i}")
                        };
                        (secret, format!("v{version}"))
                    }),
                );
                let started = Instant::now();
                client.mount(request).await.unwrap();
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        (one, twenty)
    }

    /// The cloud calls and seconds that this many pods need to mount the same 10 secrets at once.
    pub(crate) async fn at_once(&self, pods: usize) -> (usize, f64) {
        self.emulator.clear_calls();
        let client = socket::client(&self.provider.socket);
        let started = Instant::now();
        let objects: Vec<_> = (0..10)
            .map(|i| (format!("s{i}"), "latest".to_owned()))
            .collect();
        // A new volume accepts a cached `latest` for 10 s; wait until it is older.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let waited = started.elapsed();
        join_all((0..pods).map(|pod| {
            let mut client = client.clone();
            let request = request_of("at-once", &format!("pod{pod}"), objects.clone());
            async move { client.mount(request).await.unwrap() }
        }))
        .await;
        let seconds = (started.elapsed() - waited).as_secs_f64();
        (self.emulator.answers("ShowSecretVersion").len(), seconds)
    }

    /// Mounts this many pods with this many secrets each.
    pub(crate) async fn fill(&self, pods: usize, objects: usize) {
        let mut client = socket::client(&self.provider.socket);
        for pod in 0..pods {
            client
                .mount(request("fill", &format!("pod{pod}"), objects, "latest"))
                .await
                .unwrap();
        }
    }
}

fn start_echo(folder: &tempfile::TempDir, name: &str, response: &MountResponse) -> Process {
    let socket = folder.path().join(format!("echo-{name}.sock"));
    std::fs::write(socket.with_extension("response"), response.encode_to_vec()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--echo").arg(&socket);
    Process::start(&mut command, &socket)
}

fn request(class: &str, pod: &str, objects: usize, version: &str) -> MountRequest {
    request_of(
        class,
        pod,
        (0..objects).map(|i| (format!("s{i}"), version.to_owned())),
    )
}

fn request_of(
    class: &str,
    pod: &str,
    objects: impl IntoIterator<Item = (String, String)>,
) -> MountRequest {
    let mut text = String::new();
    for (secret, version) in objects {
        writeln!(
            text,
            "- objectName: {secret}\n  objectType: csms\n  objectVersion: {version}"
        )
        .unwrap();
    }
    let attributes: BTreeMap<&str, &str> = [
        ("objects", text.as_str()),
        ("secretProviderClass", class),
        ("csi.storage.k8s.io/pod.name", pod),
        ("csi.storage.k8s.io/pod.namespace", "default"),
        ("csi.storage.k8s.io/pod.uid", pod),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]
    .into();
    MountRequest {
        attributes: json!(attributes).to_string(),
        secrets: "null".into(),
        target_path: format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~csi/secrets/mount"),
        permission: "420".into(),
        current_object_version: Vec::new(),
    }
}

/// Creates the secrets with all their versions.
async fn create_secrets(url: &str) {
    let config = CloudConfig::emulated(url);
    let (clock, jitter) = (Clock::system(), Jitter::seeded(1));
    let cloud = Cloud::new(
        config,
        &Env::default(),
        clock,
        jitter,
        CloudMetrics::default(),
    )
    .unwrap();
    let csms = Csms::new(cloud);
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "bench"),
        turn: Turn::default(),
    };
    let deadline = || tokio::time::Instant::now() + Duration::from_secs(60);
    let value = || SecretValue::Text("x".repeat(VALUE).into());
    let names: Vec<String> = (0..SECRETS).map(|i| format!("s{i}")).collect();
    for name in names.iter().map(String::as_str).chain(["single"]) {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value: value(),
        };
        csms.create_secret(&caller, new, deadline()).await.unwrap();
        for _ in 1..VERSIONS {
            csms.create_secret_version(&caller, name, value(), &[], deadline())
                .await
                .unwrap();
        }
    }
}
