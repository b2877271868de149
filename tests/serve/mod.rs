//! Running the provider: admin pages, shutdown, restart after a crash, and readiness.

use std::time::Duration;

use dew_provider::sim::csi_driver::{Driver, DriverConfig, PodVolume};
use dew_provider::sim::huawei::{Config, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, Emulator};
use dew_provider::util::clock::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::http::get;
use crate::support::paused_clock::drive;
use crate::support::program::Serve;
use crate::support::test_node::{TestNode, files};

#[tokio::test]
async fn admin_pages_report_liveness_readiness_and_metrics() {
    let node = TestNode::new().await;
    for name in ["livez", "readyz"] {
        let page = node.page(name).await;
        assert_eq!((page.status, page.text().as_str()), (200, "ok\n"), "{name}");
    }
    node.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.apply_for("app", objects, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    node.apply_for("app", "[]", &["a"]).await;
    assert!(node.publish(&node.pod("app", "2")).await.is_err());
    let metrics = node.metrics().await;
    for line in [
        "dew_provider_mounts_total{outcome=\"ok\",reason=\"none\"} 1",
        "dew_provider_mounts_total{outcome=\"error\",reason=\"invalid\"} 1",
        "dew_provider_mount_duration_seconds_count 2",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"ok\"} 1",
        "dew_provider_cloud_call_duration_seconds_count{operation=\"ShowSecretVersion\"} 1",
        "dew_provider_store_requests_total{result=\"fetched\"} 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    for name in ["app", "default"] {
        assert!(!metrics.contains(name), "no names in labels: {metrics}");
    }
    assert_eq!(node.page("nothing").await.status, 404);
}

#[tokio::test]
async fn a_missing_socket_fails_liveness() {
    let node = TestNode::new().await;
    std::fs::remove_file(&node.provider.sockets[0]).unwrap();
    let page = node.page("livez").await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains("socket does not respond"),
        "{}",
        page.text()
    );
}

/// The program next to an emulator, with a driver that mounts one class.
struct Node {
    emulator: Emulator,
    serve: Serve,
    driver: Driver,
    dir: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, Config::default(), Clock::system()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let serve = Self::serve(&emulator, &dir).await;
        let driver = Driver::new(DriverConfig::new(dir.path()), Clock::system());
        let objects = "- {objectName: a, objectType: csms, objectVersion: latest, optional: true}";
        driver.apply(
            "ns",
            "app",
            "cce",
            [("objects".to_owned(), objects.to_owned())].into(),
        );
        Self {
            emulator,
            serve,
            driver,
            dir,
        }
    }

    async fn serve(emulator: &Emulator, dir: &tempfile::TempDir) -> Serve {
        let url = emulator.url();
        let args = [
            "--region",
            "cn-north-4",
            "--csms-endpoint",
            &url,
            "--iam-endpoint",
            &url,
            "--log-format",
            "json",
        ];
        let env = [
            ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
            ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
        ];
        Serve::start(dir.path(), &args, &env).await
    }

    fn pod(&self, uid: &str) -> PodVolume {
        PodVolume {
            namespace: "ns".into(),
            pod: format!("pod-{uid}"),
            class: "app".into(),
            uid: uid.into(),
            target_path: self.dir.path().join(uid),
            ..PodVolume::default()
        }
    }
}

#[tokio::test]
async fn sigterm_lets_an_in_flight_mount_finish_and_exits_with_zero() {
    let node = Node::start().await;
    let slow =
        r#"{"match": {"operation": "ShowSecretVersion"}, "times": 1, "fault": {"delay_ms": 700}}"#;
    node.emulator.add_faults(slow).unwrap();
    let faults = format!("{}/_emulator/faults", node.emulator.url());
    let pod = node.pod("1");
    let mount = node.driver.publish_as_kubelet(&pod);
    let stop = async {
        // The fault is used up once the call has arrived.
        while get(&faults).await.json() != json!([]) {
            tokio::task::yield_now().await;
        }
        node.serve.signal("TERM");
    };
    let (mounted, ()) = tokio::join!(mount, stop);
    mounted.unwrap();
    assert_eq!(files(&pod.target_path).len(), 1);
    let socket = node.serve.socket.clone();
    let (status, log) = node.serve.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!socket.exists(), "the socket is removed");
    // Each log line is JSON; those of a mount have its pod and class.
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mounted = lines
        .iter()
        .find(|line| line["message"] == "mounted")
        .unwrap();
    assert_eq!(mounted["span"]["pod"], "ns/pod-1", "{mounted}");
    assert_eq!(mounted["span"]["class"], "app", "{mounted}");
    assert!(
        lines
            .iter()
            .any(|line| line["message"].as_str().unwrap().contains("shutting down")),
        "{log}"
    );
}

#[tokio::test]
async fn a_mount_that_outlasts_the_drain_is_answered_with_an_error() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.apply_for("app", objects, &["a"]).await;
    let slow = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"delay_ms": 7500, "status": 504}});
    node.fault(slow).await;
    let pod = node.pod("app", "1");
    let TestNode {
        provider, driver, ..
    } = node;
    let (mounted, ()) = drive(async {
        tokio::join!(driver.publish_as_kubelet(&pod), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            provider.stop().await;
        })
    })
    .await;
    let error = mounted.expect_err("stopped");
    assert_eq!(error.code(), tonic::Code::Internal, "{error}");
    assert!(
        error.message().contains("the provider is shutting down"),
        "{error}"
    );
}

#[tokio::test]
async fn a_provider_starts_and_mounts_after_its_predecessor_was_killed() {
    let node = Node::start().await;
    node.driver
        .publish_as_kubelet(&node.pod("1"))
        .await
        .unwrap();
    node.serve.signal("KILL");
    let Node {
        emulator,
        serve,
        driver,
        dir,
    } = node;
    let socket = serve.socket.clone();
    let (status, _) = serve.end().await;
    assert!(
        !status.success() && socket.exists(),
        "a killed process leaves its socket"
    );
    let serve = Node::serve(&emulator, &dir).await;
    let node = Node {
        emulator,
        serve,
        driver,
        dir,
    };
    node.driver
        .publish_as_kubelet(&node.pod("2"))
        .await
        .unwrap();
    node.serve.signal("INT");
    assert_eq!(node.serve.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn half_open_connections_do_not_keep_out_a_probe() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = crate::support::test_node::TestNode::new().await;
    let address = node.provider.admin_address.unwrap();
    let mut half_open = Vec::new();
    for _ in 0..300 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: ")
            .await
            .unwrap();
        half_open.push(stream);
    }
    for name in ["livez", "readyz", "metrics"] {
        assert_eq!(node.page(name).await.status, 200, "{name}");
    }
    // The oldest connections were closed.
    let mut rest = Vec::new();
    let _ = drive(half_open[0].read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    // A header that is too long is rejected.
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(long.as_bytes()).await;
    let mut response = Vec::new();
    let _ = drive(stream.read_to_end(&mut response)).await;
    assert!(!String::from_utf8_lossy(&response).contains("200 OK"));
}

#[tokio::test]
async fn readiness_waits_for_the_first_list_of_classes() {
    use dew_provider::cloud::CloudConfig;
    use dew_provider::serve::{self, Dependencies, ServeConfig};
    use dew_provider::util::clock::Jitter;
    use dew_provider::util::env::Env;
    let api = crate::support::api_server::ApiServer::default();
    api.set_broken(Some(500));
    let dir = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        provider_names: vec!["cce".into(), "dew".into()],
        ..ServeConfig::emulated(dir.path().into(), CloudConfig::default())
    };
    let dependencies = Dependencies {
        env: Env::default(),
        clock: Clock::system(),
        jitter: Jitter::seeded(1),
        dial: dew_provider::cloud::tcp(),
        kube: Some(api.0.client()),
    };
    let _paused = crate::support::paused_clock::PausedClock::new();
    let handle = serve::start(config, dependencies).await.unwrap();
    assert_eq!(handle.sockets.len(), 2, "one per name");
    let url = format!("http://{}/readyz", handle.admin_address.unwrap());
    let page = drive(get(&url)).await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains("first list of SecretProviderClasses"),
        "{}",
        page.text()
    );
    api.set_broken(None);
    drive(async {
        while get(&url).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drive(handle.stop()).await;
}
