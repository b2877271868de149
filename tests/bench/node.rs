//! The provider as a process, its cloud, and the classes that it is asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, Config, Credentials, Env, NewSecret, SecretValue,
};
use dew_provider::emulator::{
    self, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::observe::metrics::CloudMetrics;
use dew_provider::proto::{MountRequest, MountResponse};
use dew_provider::socket;
use futures::future::join_all;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use super::process::Process;

/// Secrets that exist, and their versions.
const SECRETS: usize = 20;
const VERSIONS: usize = 20;
const VALUE: usize = 64;
const QPS: &str = "100000";

/// What a pod asks for.
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
            Emulator::start(listener, emulator::Config::default(), Clock::system()).unwrap();
        create(&emulator.url()).await;
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

    /// Objects of secrets `s0`, `s1` and so on, each as a file.
    pub(crate) async fn class(&self, name: &str, objects: usize, version: &str) -> Class {
        Class {
            request: request(name, "pod", objects, version),
            name: name.to_owned(),
        }
    }

    /// An echo of what the provider answers for the class.
    pub(crate) async fn echo(&self, class: &Class) -> Process {
        let answer = socket::client(&self.provider.socket)
            .mount(class.request.clone())
            .await;
        start_echo(&self.folder, &class.name, &answer.unwrap().into_inner())
    }

    /// Milliseconds of Mounts that find nothing in the store, with a cloud that answers in 50 ms:
    /// of one object, and of twenty.
    pub(crate) async fn cold(&self) -> (Vec<f64>, Vec<f64>) {
        self.emulator
            .add_faults(r#"{"fault": {"delay_ms": 50}}"#)
            .unwrap();
        let (mut one, mut twenty) = (Vec::new(), Vec::new());
        let mut client = socket::client(&self.provider.socket);
        // Versions that nobody asked for yet; those of the first secret are for the single ones.
        for version in 1..=VERSIONS {
            for (times, objects) in [(&mut one, 1), (&mut twenty, SECRETS)] {
                let stage = if objects == 1 { "single" } else { "all" };
                let name = format!("cold-{stage}-{version}");
                let request = request_of(
                    &name,
                    "pod",
                    (0..objects).map(|i| {
                        // The single object asks under a name of its own, so that it is cold too.
                        let secret = if objects == 1 {
                            "single".to_owned()
                        } else {
                            format!("s{i}")
                        };
                        (secret, format!("v{version}"))
                    }),
                );
                let begun = Instant::now();
                client.mount(request).await.unwrap();
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        (one, twenty)
    }

    /// Cloud calls and seconds of so many pods that ask for the same 10 secrets at once.
    pub(crate) async fn at_once(&self, pods: usize) -> (usize, f64) {
        self.emulator.clear_calls();
        let client = socket::client(&self.provider.socket);
        let begun = Instant::now();
        let stages: Vec<_> = (0..10)
            .map(|i| (format!("s{i}"), "latest".to_owned()))
            .collect();
        // `latest` of a new volume is at most 10 s old.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let waited = begun.elapsed();
        join_all((0..pods).map(|pod| {
            let mut client = client.clone();
            let request = request_of("at-once", &format!("pod{pod}"), stages.clone());
            async move { client.mount(request).await.unwrap() }
        }))
        .await;
        let seconds = (begun.elapsed() - waited).as_secs_f64();
        (self.emulator.answers("ShowSecretVersion").len(), seconds)
    }

    /// Mounts so many pods with so many secrets each.
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

fn start_echo(folder: &tempfile::TempDir, name: &str, answer: &MountResponse) -> Process {
    let socket = folder.path().join(format!("echo-{name}.sock"));
    std::fs::write(socket.with_extension("answer"), answer.encode_to_vec()).unwrap();
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

/// Fills the cloud.
async fn create(url: &str) {
    let many = 100_000.try_into().unwrap();
    let config = Config {
        csms_endpoint: Some(url.into()),
        qps: many,
        burst: many,
        ..Config::default()
    };
    let (clock, jitter) = (Clock::system(), Jitter::seeded(1));
    let cloud = Cloud::new(
        config,
        &Env::default(),
        clock,
        jitter,
        CloudMetrics::default(),
    )
    .unwrap();
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "bench"),
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
        cloud.create_secret(&caller, new, deadline()).await.unwrap();
        for _ in 1..VERSIONS {
            cloud
                .create_secret_version(&caller, name, value(), &[], deadline())
                .await
                .unwrap();
        }
    }
}
