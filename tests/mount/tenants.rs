//! Mounts of one namespace do not delay those of another.

use std::time::Duration;

use dew_provider::sim::csi_driver::PodVolume;
use futures::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::support::paused_clock::drive;
use crate::support::test_node::{Setup, TestNode, read};

/// The rate limit of a node by default.
async fn node_with_default_limit() -> TestNode {
    let mut node = TestNode::with(Setup::default()).await;
    node = node
        .restart_provider(|launch| {
            launch.config.cloud.qps = 5.try_into().unwrap();
            launch.config.cloud.burst = 20.try_into().unwrap();
        })
        .await;
    node
}

fn objects(names: &[String]) -> String {
    let object = |name: &String| {
        format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n")
    };
    names.iter().map(object).collect()
}

fn apply_in(node: &TestNode, namespace: &str, names: &[String]) {
    let parameters = std::collections::BTreeMap::from([("objects".to_owned(), objects(names))]);
    node.api.put_class(namespace, "app", &parameters);
    node.driver.apply(namespace, "app", "cce", parameters);
    let list = json!(names).to_string();
    node.api.put_account(namespace, "app", Some(&list));
}

fn pod_in(node: &TestNode, namespace: &str, uid: &str) -> PodVolume {
    PodVolume {
        namespace: namespace.into(),
        ..node.pod("app", uid)
    }
}

#[tokio::test]
async fn a_namespace_that_asks_for_much_delays_the_first_mount_of_another_for_two_seconds_at_most()
{
    let node = node_with_default_limit().await;
    let missing: Vec<String> = (0..200).map(|i| format!("missing-{i}")).collect();
    apply_in(&node, "greedy", &missing);
    let wanted: Vec<String> = (0..10).map(|i| format!("wanted-{i}")).collect();
    for name in &wanted {
        node.create(name, "value").await;
    }
    apply_in(&node, "honest", &wanted);
    let greedy: Vec<PodVolume> = (0..10)
        .map(|i| pod_in(&node, "greedy", &format!("g{i}")))
        .collect();
    let honest = pod_in(&node, "honest", "h");
    let (driver, begin) = (&node.driver, Instant::now());
    let took = drive(async {
        let hostile = join_all(greedy.iter().map(|pod| driver.publish_as_kubelet(pod)));
        let mount = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let begin = Instant::now();
            driver.publish_as_kubelet(&honest).await.unwrap();
            begin.elapsed()
        };
        let (failed, took) = tokio::join!(hostile, mount);
        assert!(failed.iter().all(Result::is_err));
        took
    })
    .await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert!(
        begin.elapsed() > Duration::from_secs(30),
        "the others waited"
    );
}

#[tokio::test]
async fn a_secret_that_others_wait_for_is_fetched_in_the_turn_of_the_first_of_them() {
    let node = node_with_default_limit().await;
    let mut names: Vec<String> = (0..199).map(|i| format!("missing-{i}")).collect();
    names.push("shared".into());
    apply_in(&node, "greedy", &names);
    node.create("shared", "value").await;
    apply_in(&node, "honest", &names[199..]);
    let (greedy, honest) = (pod_in(&node, "greedy", "g"), pod_in(&node, "honest", "h"));
    let driver = &node.driver;
    let took = drive(async {
        let mount = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let begin = Instant::now();
            driver.publish_as_kubelet(&honest).await.unwrap();
            begin.elapsed()
        };
        tokio::join!(driver.publish_as_kubelet(&greedy), mount).1
    })
    .await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_missing_secret_is_asked_for_once_in_five_seconds_and_then_more_rarely() {
    let node = TestNode::new().await;
    let names = ["missing".to_owned()];
    apply_in(&node, "team", &names);
    let pod = pod_in(&node, "team", "1");
    let mut asked = Vec::new();
    for second in 0..90 {
        let before = node.calls("ShowSecretVersion").await;
        node.publish(&pod).await.expect_err("missing");
        if node.calls("ShowSecretVersion").await > before {
            asked.push(second);
        }
        node.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(asked, [0, 5, 15, 35, 55, 75]);
    node.create("missing", "found").await;
    node.pass(Duration::from_secs(60)).await;
    node.publish(&pod).await.unwrap();
}

#[tokio::test]
async fn values_of_one_namespace_evict_no_last_good_value_of_another() {
    const VALUE: usize = 32_768;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let node = TestNode::with(Setup {
        store_dir: Some(folder.path().into()),
        ..Setup::default()
    })
    .await;
    node.create("honest", "value").await;
    apply_in(&node, "honest", &["honest".to_owned()]);
    node.publish(&pod_in(&node, "honest", "h1")).await.unwrap();
    // Whom the values belong to is known after a restart, too.
    let node = node.restart_provider(|_| {}).await;
    // More than the cache holds, a volume full at a time.
    let names: Vec<String> = (0..41).map(|i| format!("s{i}")).collect();
    for version in 1..=20 {
        for name in &names {
            if version == 1 {
                node.create(name, "x".repeat(VALUE)).await;
            } else {
                node.put(name, "x".repeat(VALUE), &[]).await;
            }
        }
        apply_in(&node, "greedy", &names);
        let pinned = objects(&names).replace("latest", &format!("v{version}"));
        let parameters = std::collections::BTreeMap::from([("objects".to_owned(), pinned)]);
        node.api.put_class("greedy", "app", &parameters);
        node.driver.apply("greedy", "app", "cce", parameters);
        let pod = pod_in(&node, "greedy", &format!("g{version}"));
        node.publish(&pod).await.unwrap();
    }
    node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}}))
        .await;
    let late = pod_in(&node, "honest", "h2");
    node.publish(&late).await.unwrap();
    assert_eq!(read(&late, "honest"), "value");
}
