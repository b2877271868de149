//! What tenants create costs a provider no more memory than it may have: the program runs as a process, and the
//! kernel says how much it used.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, NewSecret, SecretValue,
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
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use crate::support::api_server::{ApiServer, CLASSES, RECORDS};
use crate::support::{api_http, http, program};

const MIB: u64 = 1024 * 1024;
/// How much more memory than an idle provider one may use, by what tenants do. Idle, the program in the image has
/// 9 MiB, so that this keeps it below 64 MiB; a debug build has more when idle, and grows alike.
const MAX_GROWTH_BY_LISTS: u64 = 24 * MIB;
const MAX_GROWTH_BY_REQUESTS: u64 = 32 * MIB;
const MAX_GROWTH_BY_OBJECTS: u64 = 48 * MIB;
const MAX_GROWTH_BY_VOLUMES: u64 = 40 * MIB;
/// Longest line of the log, in bytes.
const MAX_LINE: usize = 9 * 1024;
/// The limit of each step, in real time.
const LIMIT: Duration = Duration::from_secs(120);

/// A cloud, an API server and a provider of it that runs as a process.
struct World {
    api: ApiServer,
    emulator: Emulator,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
}

/// A running provider.
struct Provider {
    child: Child,
    socket: PathBuf,
    admin: String,
    log: PathBuf,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator =
            Emulator::start(listener, huawei::Config::default(), Clock::system()).unwrap();
        let api = ApiServer::default();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = api_http::serve(&api, folder.path()).await;
        let world = Self {
            api,
            emulator,
            folder,
            kubeconfig,
        };
        world.create("honest", "the value").await;
        world.put_class("honest", "app", &object("honest"));
        world
            .api
            .put_account("honest", "app", Some(r#"["honest"]"#));
        world
    }

    async fn create(&self, name: &str, value: &str) {
        let config = CloudConfig::emulated(&self.emulator.url());
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let cloud = Cloud::new(config, &env, Clock::system(), Jitter::seeded(1), metrics).unwrap();
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let owner = Caller {
            region: DEMO_REGION.parse().unwrap(),
            project: Some(DEMO_PROJECT.into()),
            credentials: Credentials::fixed(keys, "the owner"),
            turn: dew_provider::cloud::Turn::default(),
        };
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value: SecretValue::Text(value.to_owned().into()),
        };
        let deadline = Instant::now() + LIMIT;
        Csms::new(cloud)
            .create_secret(&owner, new, deadline)
            .await
            .unwrap();
    }

    fn put_class(&self, namespace: &str, name: &str, objects: &str) {
        let parameters = [("objects".to_owned(), objects.to_owned())].into();
        self.api.put_class(namespace, name, &parameters);
    }

    /// Starts a provider and waits until it is ready.
    async fn start(&self, name: &str) -> Provider {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = port.local_addr().unwrap().to_string();
        drop(port);
        let url = self.emulator.url();
        let mut command = program::command(&[
            "serve",
            "--socket-dir",
            folder.to_str().unwrap(),
            "--kubeconfig",
            self.kubeconfig.to_str().unwrap(),
            "--admin-address",
            &admin,
            "--region",
            DEMO_REGION,
            "--csms-endpoint",
            &url,
            "--iam-endpoint",
            &url,
            "--metadata-endpoint",
            &url,
            "--node-name",
            "node",
            "--driver-socket",
            folder.join("csi.sock").to_str().unwrap(),
        ]);
        let log = folder.join("log");
        command
            .env("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY)
            .env("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY)
            // Of memory that was freed, as little as possible counts as used.
            .env("MALLOC_ARENA_MAX", "1")
            .stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
        let provider = Provider {
            child: command.spawn().unwrap(),
            socket: folder.join("cce.sock"),
            admin,
            log,
        };
        until(|| async { UnixStream::connect(&provider.socket).is_ok() }).await;
        until(|| async { provider.is_ready().await }).await;
        // The other watches have begun too.
        for resource in ["pods", CLASSES, RECORDS] {
            until(|| async { self.api.0.requests("watch", resource) > 0 }).await;
        }
        provider
    }
}

impl Provider {
    async fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.admin);
        http::get(&url).await.status == 200
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|text| text.starts_with(line)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    async fn mount(
        &self,
        namespace: &str,
        class: &str,
        objects: &str,
    ) -> Result<MountResponse, Status> {
        let attributes = json!({
            "objects": objects,
            "secretProviderClass": class,
            "csi.storage.k8s.io/pod.name": class,
            "csi.storage.k8s.io/pod.namespace": namespace,
            "csi.storage.k8s.io/pod.uid": format!("{namespace}-{class}"),
            "csi.storage.k8s.io/serviceAccount.name": "app",
        });
        self.send(&attributes).await
    }

    async fn send(&self, attributes: &Value) -> Result<MountResponse, Status> {
        let request = MountRequest {
            attributes: attributes.to_string(),
            secrets: "null".into(),
            target_path: "/x".into(),
            permission: "420".into(),
            ..MountRequest::default()
        };
        let mut client = socket::client(&self.socket);
        client.mount(request).await.map(tonic::Response::into_inner)
    }

    /// Another namespace's pod gets its file.
    async fn serves_others(&self) {
        let response = timeout(LIMIT, self.mount("honest", "app", &object("honest"))).await;
        let files = response.expect("in time").expect("mounted").files;
        assert_eq!(files[0].contents, "the value");
    }

    /// The provider lives and is ready, and neither its memory nor its texts got large.
    async fn is_sound(&self, idle: u64, max_growth: u64) {
        self.serves_others().await;
        assert!(self.is_ready().await);
        let peak = self.memory("VmHWM:");
        assert!(
            peak.saturating_sub(idle) < max_growth,
            "{} MiB when idle, then {} MiB",
            idle / MIB,
            peak / MIB
        );
        let log = std::fs::read(&self.log).unwrap();
        let longest = log.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
        assert!(longest.unwrap_or(0) < MAX_LINE, "{longest:?}");
    }
}

/// Waits until a condition is true.
async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("in time");
}

fn object(name: &str) -> String {
    format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n")
}

/// A list of about 260 kB: `item` as often as it fits between `head` and `tail`.
fn list(head: &str, item: &dyn Fn(usize) -> String, tail: &str) -> String {
    let mut text = head.to_owned();
    for index in 0.. {
        let item = item(index);
        if text.len() + item.len() + tail.len() > 256 * 1024 {
            break;
        }
        text += &item;
    }
    text + tail
}

/// Lists whose parsed form is as large as possible, each in another way.
fn large_lists() -> Vec<String> {
    let expression = "a.".repeat(100) + "a";
    let deep = "[".repeat(12) + &"]".repeat(12) + ",";
    vec![
        list("[", &|_| "{},".into(), "]"),
        list("[", &|_| "a,".into(), "]"),
        list("[{objectName: a,", &|i| format!("f{i}:,"), "}]"),
        list("[{x: [", &|_| deep.clone(), "]}]"),
        list("[{objectName: ", &|_| "x".repeat(1_000), "}]"),
        list("[{x: [", &|i| format!("&a{i} x,"), "]}]"),
        list(
            &format!("- {{x: &a {}}}\n", "y".repeat(2_000)),
            &|_| "- {objectName: *a}\n".into(),
            "",
        ),
        list(
            "",
            &|object| {
                let item = |i| format!("{{path: {expression}, objectAlias: d{object}/f{i}}}");
                let items: Vec<String> = (0..6).map(item).collect();
                let items = items.join(",");
                format!(
                    "- {{objectName: s{object}, objectType: csms, objectVersion: v1, jmesPath: [{items}]}}\n"
                )
            },
            "",
        ),
        list(
            "[",
            &|_| format!("{{jmesPath: [{}]}},", "{},".repeat(200)),
            "]",
        ),
        list("", &|_| "#\n".into(), ""),
        list("[{x: \"", &|_| "\\u0041".into(), "\"}]"),
    ]
}

#[tokio::test]
async fn large_lists_of_objects_do_not_add_up() {
    let world = World::new().await;
    let lists = large_lists();
    for (index, objects) in lists.iter().enumerate() {
        for copy in ["a", "b"] {
            world.put_class("hostile", &format!("{copy}{index}"), objects);
        }
    }
    world.api.put_account("hostile", "app", Some("[]"));
    let provider = world.start("provider").await;
    let idle = provider.memory("VmRSS:");
    let (provider, all) = (&provider, &lists);
    let mounts = ["a", "b"].into_iter().flat_map(|copy| {
        // Different texts, so that none is known from another Mount.
        all.iter()
            .enumerate()
            .map(move |(index, objects)| async move {
                let objects = format!("# {copy}\n{objects}");
                let objects = &objects[..objects.len().min(256 * 1024)];
                provider
                    .mount("hostile", &format!("{copy}{index}"), objects)
                    .await
            })
    });
    let (results, ()) = tokio::join!(join_all(mounts), provider.serves_others());
    for result in results {
        let error = result.expect_err("no list is mounted");
        assert!(
            [Code::InvalidArgument, Code::PermissionDenied].contains(&error.code()),
            "{error}"
        );
        assert!(error.message().len() < 12_000);
    }
    provider.is_sound(idle, MAX_GROWTH_BY_LISTS).await;
}

#[tokio::test]
async fn large_requests_do_not_add_up() {
    let world = World::new().await;
    let provider = world.start("provider").await;
    let idle = provider.memory("VmRSS:");
    let attributes = json!({
        "padding": "x".repeat(900_000),
        "objects": object("honest"),
        "secretProviderClass": "app",
        "csi.storage.k8s.io/pod.namespace": "hostile",
        "csi.storage.k8s.io/serviceAccount.name": "app",
    });
    let requests = (0..100).map(|_| provider.send(&attributes));
    let (results, ()) = tokio::join!(join_all(requests), provider.serves_others());
    for result in results {
        assert_eq!(result.expect_err("no such class").code(), Code::NotFound);
    }
    provider.is_sound(idle, MAX_GROWTH_BY_REQUESTS).await;
}

/// Objects of the largest size of every kind that is watched or read, and edits of them.
#[tokio::test]
async fn large_objects_do_not_add_up() {
    let world = World::new().await;
    let first = world.start("first").await;
    let idle = first.memory("VmRSS:");
    drop(first);
    let large = "x".repeat(1_200_000);
    let metadata = |name: String| {
        json!({
            "namespace": "hostile", "name": name, "uid": name,
            "annotations": {"a": "y".repeat(200_000)}, "labels": {"b": "c"},
        })
    };
    let put_class = |index: usize, provider: &str| {
        let mut parameters = json!({"objects": &large[index..], "region": "x".repeat(5_000)});
        for key in 0..500 {
            parameters[format!("p{key}")] = json!("z".repeat(200));
        }
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": metadata(format!("{provider}-{index}")),
            "spec": {"provider": provider, "parameters": parameters},
        });
        world.api.0.put(CLASSES, class);
    };
    for index in 0..24 {
        put_class(index, "other");
        put_class(index, "cce");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata(format!("pod-{index}")),
            "spec": {"nodeName": "node", "containers": [], "volumes": [{"name": "v", "csi": {
                "driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"objects": large},
            }}]},
        });
        world.api.0.put("pods", pod);
        let record = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
            "metadata": metadata(format!("record-{index}")),
            "status": {"secretProviderClassName": large, "objects": [{"id": large}]},
        });
        world.api.0.put(RECORDS, record);
    }
    // Lists that fill what is kept of them.
    for index in 0..60 {
        world.put_class(
            "hostile",
            &format!("full-{index}"),
            &large[..250_000 + index],
        );
    }
    let names: Vec<String> = (0..30_000).map(|i| format!("n{i}")).collect();
    for index in 0..40 {
        let list = json!(names[index..]).to_string();
        world
            .api
            .put_account("hostile", &format!("account-{index}"), Some(&list));
        world.put_class("hostile", &format!("of-{index}"), &object("x"));
    }
    let provider = world.start("second").await;
    let mounts = (0..40).map(|index| {
        let attributes = json!({
            "objects": object("x"),
            "secretProviderClass": format!("of-{index}"),
            "csi.storage.k8s.io/pod.namespace": "hostile",
            "csi.storage.k8s.io/serviceAccount.name": format!("account-{index}"),
        });
        let provider = &provider;
        async move { provider.send(&attributes).await }
    });
    // Classes that differ from the requests are read.
    let reads =
        (0..24).map(|index| provider.mount("hostile", format!("other-{index}").leak(), "- a"));
    let (denied, _, ()) = tokio::join!(join_all(mounts), join_all(reads), provider.serves_others());
    for result in denied {
        assert_eq!(
            result.expect_err("too many names").code(),
            Code::PermissionDenied
        );
    }
    // Edits, until the last one has arrived.
    for index in 0..48 {
        put_class(index % 24, "cce");
    }
    world.put_class("honest", "edited", &object("honest"));
    let changed = json!({
        "objects": object("honest"), "secretProviderClass": "edited",
        "csi.storage.k8s.io/pod.namespace": "honest",
        "csi.storage.k8s.io/serviceAccount.name": "app",
    });
    let before = world.api.0.requests("get", CLASSES);
    until(|| async {
        let reads = world.api.0.requests("get", CLASSES);
        provider.send(&changed).await.unwrap();
        world.api.0.requests("get", CLASSES) == reads
    })
    .await;
    assert!(world.api.0.requests("get", CLASSES) >= before);
    provider.is_sound(idle, MAX_GROWTH_BY_OBJECTS).await;
}

/// Pods of honest classes with as many bytes of files as the driver takes, all at once.
#[tokio::test]
async fn large_volumes_do_not_add_up() {
    const PODS: usize = 40;
    const FILES: usize = 120;
    let world = World::new().await;
    let value = json!({"k": "v".repeat(32_000)});
    world.create("big", &value.to_string()).await;
    let extracts: Vec<String> = (1..FILES)
        .map(|file| format!("{{path: k, objectAlias: f{file}}}"))
        .collect();
    let extracts = extracts.join(", ");
    let objects = format!(
        "- {{objectName: big, objectType: csms, objectVersion: v1, jmesPath: [{extracts}]}}\n"
    );
    let provider = world.start("provider").await;
    for namespace in ["busy", "other"] {
        world.api.put_account(namespace, "app", Some(r#"["big"]"#));
        for pod in 0..PODS / 2 {
            world.put_class(namespace, &format!("app{pod}"), &objects);
        }
    }
    let idle = provider.memory("VmRSS:");
    let (provider, objects) = (&provider, &objects);
    let mounts = (0..PODS).map(|pod| async move {
        let namespace = ["busy", "other"][pod % 2];
        let mounted = provider
            .mount(namespace, &format!("app{}", pod / 2), objects)
            .await;
        mounted.unwrap().files.len()
    });
    let (files, ()) = tokio::join!(join_all(mounts), provider.serves_others());
    assert_eq!(files, [FILES; PODS]);
    provider.is_sound(idle, MAX_GROWTH_BY_VOLUMES).await;
}
