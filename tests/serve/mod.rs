//! What is around the provider: its pages, its end, its start after a bad end.

use std::time::Duration;

use dew_provider::clock::Clock;
use dew_provider::driver::{Driver, DriverConfig, PodVolume};
use dew_provider::emulator::{Config, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, Emulator};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::support::http::get;
use super::support::program::Serve;
use super::support::still::hurry;
use super::support::world::{World, files};

#[tokio::test]
async fn pages_tell_life_readiness_and_counts() {
    let world = World::new().await;
    for name in ["livez", "readyz"] {
        let page = world.page(name).await;
        assert_eq!((page.status, page.text().as_str()), (200, "ok\n"), "{name}");
    }
    world.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    world.apply_for("app", objects, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    world.apply_for("app", "[]", &["a"]).await;
    assert!(world.publish(&world.pod("app", "2")).await.is_err());
    let metrics = world.metrics().await;
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
    assert_eq!(world.page("nothing").await.status, 404);
}

#[tokio::test]
async fn a_socket_that_is_gone_is_no_life() {
    let world = World::new().await;
    std::fs::remove_file(&world.provider.sockets[0]).unwrap();
    let page = world.page("livez").await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains("socket does not answer"),
        "{}",
        page.text()
    );
}

/// The program beside an emulator, with a driver that mounts one class.
struct Node {
    emulator: Emulator,
    serve: Serve,
    driver: Driver,
    folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, Config::default(), Clock::system()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let serve = Self::serve(&emulator, &folder).await;
        let driver = Driver::new(DriverConfig::new(folder.path()), Clock::system());
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
            folder,
        }
    }

    async fn serve(emulator: &Emulator, folder: &tempfile::TempDir) -> Serve {
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
        Serve::start(folder.path(), &args, &env).await
    }

    fn pod(&self, uid: &str) -> PodVolume {
        PodVolume {
            namespace: "ns".into(),
            pod: format!("pod-{uid}"),
            class: "app".into(),
            uid: uid.into(),
            target_path: self.folder.path().join(uid),
            ..PodVolume::default()
        }
    }
}

#[tokio::test]
async fn sigterm_lets_a_mount_in_flight_end_and_exits_with_zero() {
    let node = Node::start().await;
    let slow =
        r#"{"match": {"operation": "ShowSecretVersion"}, "times": 1, "fault": {"delay_ms": 700}}"#;
    node.emulator.add_faults(slow).unwrap();
    let faults = format!("{}/_emulator/faults", node.emulator.url());
    let pod = node.pod("1");
    let mount = node.driver.publish_as_kubelet(&pod);
    let stop = async {
        // The rule is used up when the call has arrived.
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
    assert!(!socket.exists(), "the socket is gone");
    // One line of JSON for each event, with pod, class and version.
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
            .any(|line| line["message"].as_str().unwrap().contains("stopping")),
        "{log}"
    );
}

#[tokio::test]
async fn a_mount_that_outlasts_the_end_gets_an_answer_all_the_same() {
    let world = World::new().await;
    world.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    world.apply_for("app", objects, &["a"]).await;
    let hang = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"delay_ms": 7500, "status": 504}});
    world.fault(hang).await;
    let pod = world.pod("app", "1");
    let World {
        provider, driver, ..
    } = world;
    let (mounted, ()) = hurry(async {
        tokio::join!(driver.publish_as_kubelet(&pod), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            provider.stop().await;
        })
    })
    .await;
    let refused = mounted.expect_err("stopped");
    assert_eq!(refused.code(), tonic::Code::Internal, "{refused}");
    assert!(
        refused.message().contains("the provider is stopping"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_provider_that_was_killed_is_replaced_while_pods_come_and_go() {
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
        folder,
    } = node;
    let socket = serve.socket.clone();
    let (status, _) = serve.end().await;
    assert!(
        !status.success() && socket.exists(),
        "a killed process leaves its socket"
    );
    let serve = Node::serve(&emulator, &folder).await;
    let node = Node {
        emulator,
        serve,
        driver,
        folder,
    };
    node.driver
        .publish_as_kubelet(&node.pod("2"))
        .await
        .unwrap();
    node.serve.signal("INT");
    assert_eq!(node.serve.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn readiness_waits_for_the_first_list_of_classes() {
    use dew_provider::clock::Jitter;
    use dew_provider::cloud::{Config, Env};
    use dew_provider::provider::authorize::AllowListMode;
    use dew_provider::serve::{self, Outside};
    let api = super::support::api_server::ApiServer::default();
    api.set_broken(Some(500));
    let folder = tempfile::tempdir().unwrap();
    let config = serve::Config {
        socket_dir: folder.path().into(),
        provider_names: vec!["cce".into(), "dew".into()],
        region: None,
        project: None,
        interval: Duration::from_secs(120),
        stale_limit: std::time::Duration::from_secs(24 * 3600),
        store_dir: None,
        allow_list: AllowListMode::Required,
        cloud: Config::default(),
        rotation: None,
        admin_address: Some("127.0.0.1:0".parse().unwrap()),
    };
    let outside = Outside {
        env: Env::default(),
        clock: Clock::system(),
        jitter: Jitter::seeded(1),
        dial: dew_provider::cloud::tcp(),
        kube: Some(api.0.client()),
    };
    let _still = super::support::still::Still::new();
    let running = serve::start(config, outside).await.unwrap();
    assert_eq!(running.sockets.len(), 2, "one for each name");
    let url = format!("http://{}/readyz", running.admin_address.unwrap());
    let page = hurry(get(&url)).await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains("first list of SecretProviderClasses"),
        "{}",
        page.text()
    );
    api.set_broken(None);
    hurry(async {
        while get(&url).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    hurry(running.stop()).await;
}
