//! How old the versions in a mount may be, how many cloud calls that takes, and when cached
//! versions are dropped.

use std::time::Duration;

use futures::future::join_all;

use crate::support::paused_clock::drive;
use crate::support::test_node::{INTERVAL, TestNode, read};

const SECOND: Duration = Duration::from_secs(1);
const LATEST: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

#[tokio::test]
async fn latest_in_a_mounted_volume_is_at_most_one_interval_old() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", LATEST, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    node.put("a", "two", &[]).await;
    // kubelet repeats the mount, but the cloud is not called again before the interval ends.
    for _ in 0..3 {
        node.pass(INTERVAL / 4).await;
        node.publish(&pod).await.unwrap();
        assert_eq!(read(&pod, "a"), "one");
    }
    assert_eq!(node.calls("ShowSecretVersion").await, 1);
    node.pass(INTERVAL / 4 + SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "two");
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn latest_in_a_new_volume_is_at_most_ten_seconds_old() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", LATEST, &["a"]).await;
    let old = node.pod("app", "1");
    node.publish(&old).await.unwrap();
    node.put("a", "two", &[]).await;
    node.pass(9 * SECOND).await;
    let early = node.pod("app", "2");
    node.publish(&early).await.unwrap();
    assert_eq!(read(&early, "a"), "one");
    node.pass(2 * SECOND).await;
    let late = node.pod("app", "3");
    node.publish(&late).await.unwrap();
    assert_eq!(read(&late, "a"), "two");
    // The old pod gets the version that was fetched for the new one.
    node.publish(&old).await.unwrap();
    assert_eq!(read(&old, "a"), "two");
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn a_moved_stage_is_followed_with_one_fetch_per_version() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.put("a", "two", &[]).await;
    node.move_stage("a", "blue", "v1").await;
    node.apply_for(
        "app",
        "- {objectName: a, objectType: csms, stage: blue}",
        &["a"],
    )
    .await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    node.move_stage("a", "blue", "v2").await;
    node.pass(INTERVAL + SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "two");
    assert_eq!(node.calls("ShowSecretStage").await, 2);
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn a_stage_is_not_served_from_a_version_fetched_long_ago() {
    let node = TestNode::new().await;
    node.create("a", "old").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    node.apply_for("pinned", pinned, &["a"]).await;
    node.publish(&node.pod("pinned", "1")).await.unwrap();
    // A new secret of the same name starts with v1 and SYSCURRENT too.
    node.delete("a").await;
    node.create("a", "new").await;
    node.pass(SECOND * 3601).await;
    let stage = "- {objectName: a, objectType: csms, stage: SYSCURRENT}";
    node.apply_for("stage", stage, &["a"]).await;
    let pod = node.pod("stage", "2");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
}

#[tokio::test]
async fn a_mounted_volume_never_fetches_a_pinned_version_twice() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    node.apply_for("app", pinned, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    for _ in 0..30 {
        node.pass(SECOND * 80).await;
        node.publish(&pod).await.unwrap();
    }
    assert_eq!(node.calls("ShowSecretVersion").await, 1);
    // In a new volume the version must have been confirmed within the last hour.
    node.publish(&node.pod("app", "2")).await.unwrap();
    assert_eq!(node.calls("ShowSecretVersion").await, 1);
    node.pass(SECOND * 1300).await;
    node.publish(&node.pod("app", "3")).await.unwrap();
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
    // A deleted secret stops new pods only.
    node.delete("a").await;
    node.pass(SECOND * 3601).await;
    let error = node
        .publish(&node.pod("app", "4"))
        .await
        .expect_err("deleted");
    assert_eq!(error.code(), tonic::Code::NotFound);
    let failed = node.failed_mounts().await;
    node.publish(&pod).await.unwrap();
    assert_eq!(node.failed_mounts().await, failed);
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn an_object_added_to_a_class_counts_as_new_in_a_mounted_volume() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.create("b", "b1").await;
    node.apply_for("app", LATEST, &["a", "b"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    let both = format!("{LATEST}\n- {{objectName: b, objectType: csms, objectVersion: latest}}");
    node.apply_for("app", &both, &["a", "b"]).await;
    node.pass(11 * SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(
        (read(&pod, "a"), read(&pod, "b")),
        ("one".into(), "b1".into())
    );
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
    node.apply_for("app", LATEST, &["a", "b"]).await;
    node.pass(2 * SECOND).await;
    node.publish(&pod).await.unwrap();
    assert!(!pod.target_path.join("b").exists());
}

#[tokio::test]
async fn concurrent_mounts_share_one_call_per_secret() {
    let node = TestNode::new().await;
    let mut objects = String::new();
    let names: Vec<String> = (0..10).map(|i| format!("s{i}")).collect();
    for name in &names {
        node.create(name, "x").await;
        objects += &format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n");
    }
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    node.apply_for("app", &objects, &listed).await;
    let pods: Vec<_> = (0..200).map(|i| node.pod("app", &i.to_string())).collect();
    let mounts = pods.iter().map(|pod| node.driver.publish_as_kubelet(pod));
    for result in drive(join_all(mounts)).await {
        result.unwrap();
    }
    assert_eq!(node.calls("ShowSecretVersion").await, 10);
    assert_eq!(node.api.account_reads(), 1);
    let metrics = node.metrics().await;
    assert!(
        metrics.contains("dew_provider_mounts_total{outcome=\"ok\",reason=\"none\"} 200"),
        "{metrics}"
    );
    assert!(
        metrics.contains("dew_provider_store_requests_total{result=\"fetched\"} 10"),
        "{metrics}"
    );
}

#[tokio::test]
async fn versions_unused_for_a_day_are_dropped() {
    let node = TestNode::new().await;
    node.create("a", "a value of some length").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    node.apply_for("app", pinned, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    let size = |metrics: String| -> u64 {
        let line = metrics
            .lines()
            .find(|l| l.starts_with("dew_provider_store_size_bytes"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(size(node.metrics().await) > 0);
    node.pass(SECOND * 23 * 3600).await;
    drive(tokio::task::yield_now()).await;
    assert!(size(node.metrics().await) > 0);
    node.pass(SECOND * 2 * 3600).await;
    assert_eq!(size(node.metrics().await), 0);
}

#[tokio::test]
async fn identities_never_share_cached_versions() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", LATEST, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    let keys = |secret: &str| {
        let pairs = [("accessKey", "DEMOACCESSKEY0000001"), ("secretKey", secret)];
        Some(
            pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    };
    // A pod with invalid keys gets nothing that the node's identity fetched.
    let mut pod = node.pod("app", "2");
    pod.secrets = keys("wrong");
    let error = node.publish(&pod).await.expect_err("wrong keys");
    assert_eq!(error.code(), tonic::Code::PermissionDenied);
    assert!(
        error.message().contains("verify aksk signature fail"),
        "{error}"
    );
    pod.secrets = keys(dew_provider::sim::huawei::DEMO_SECRET_KEY);
    node.publish(&pod).await.unwrap();
    // Valid keys of the same account are another identity, which fetches on its own. The invalid
    // keys were rejected by IAM, before any call to CSMS.
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
    pod.secrets = Some([("accessKey".to_owned(), "x".to_owned())].into());
    pod.target_path.push("other");
    let error = node.publish(&pod).await.expect_err("half a pair");
    assert!(error.message().contains("has no secretKey"), "{error}");
}
