//! What ends a value that was fetched earlier: a second "not found", and a secret that was made anew.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::{FOLLOWS_A, node_with_mounted_pod};
use crate::support::cluster::{self, Cluster};
use crate::support::test_node::{INTERVAL, Setup, TestNode, read};

const SECOND: Duration = Duration::from_secs(1);
const PINNED: &str = "- {objectName: a, objectType: csms, objectVersion: v1}";

/// Lets all reads of versions fail with `fault`.
async fn fail(node: &TestNode, fault: Value) {
    node.clear_faults().await;
    let every_read = json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault});
    node.fault(every_read).await;
}

fn not_found() -> Value {
    json!({"status": 404, "code": "CSMS.0106"})
}

#[tokio::test]
async fn an_optional_file_goes_after_the_second_not_found() {
    let node = TestNode::new().await;
    node.create("a", "the value").await;
    node.create("b", "of b").await;
    let objects = format!(
        "{FOLLOWS_A}\n- {{objectName: b, objectType: csms, objectVersion: latest, optional: true}}"
    );
    node.apply_for("app", &objects, &["a", "b"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    let only_b =
        json!({"match": {"operation": "ShowSecretVersion", "secret": "b"}, "fault": not_found()});
    node.fault(only_b.clone()).await;
    node.pass(INTERVAL + SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b", "one answer may be a mistake");
    // The same answer a moment later is no second one.
    node.pass(2 * SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
    // A new pod gets it too.
    let new = node.pod("app", "2");
    node.publish(&new).await.unwrap();
    assert_eq!(read(&new, "b"), "of b");
    // An answer with the value ends the count.
    node.clear_faults().await;
    node.publish(&pod).await.unwrap();
    node.fault(only_b).await;
    node.pass(INTERVAL + SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
    node.pass(6 * SECOND).await;
    node.publish(&pod).await.unwrap();
    assert!(!pod.target_path.join("b").exists(), "after the second");
    assert_eq!(read(&pod, "a"), "the value");
}

#[tokio::test]
async fn a_last_good_value_ends_with_the_second_not_found() {
    let node = node_with_mounted_pod(Setup::default()).await;
    fail(&node, not_found()).await;
    let error = node.publish(&node.pod("app", "2")).await.expect_err("none");
    assert_eq!(error.code(), Code::NotFound);
    fail(&node, json!({"status": 502})).await;
    let pod = node.pod("app", "3");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value", "after one answer");
    node.pass(11 * SECOND).await;
    fail(&node, not_found()).await;
    for name in ["4", "5"] {
        let error = node.publish(&node.pod("app", name)).await;
        assert_eq!(error.expect_err("none").code(), Code::NotFound);
        node.pass(6 * SECOND).await;
    }
    fail(&node, json!({"status": 502})).await;
    let error = node.publish(&node.pod("app", "6")).await;
    assert_eq!(error.expect_err("ended").code(), Code::Internal);
}

#[tokio::test]
async fn a_secret_made_anew_ends_pinned_versions_of_the_old_one_at_once() {
    for is_outage in [false, true] {
        let node = TestNode::new().await;
        node.create("a", "old").await;
        node.apply_for("pinned", PINNED, &["a"]).await;
        node.apply_for("app", FOLLOWS_A, &["a"]).await;
        let running = node.pod("pinned", "1");
        node.publish(&running).await.unwrap();
        node.delete("a").await;
        node.create("a", "new").await;
        node.pass(11 * SECOND).await;
        // Nothing says yet that v1 is another one.
        let early = node.pod("pinned", "2");
        node.publish(&early).await.unwrap();
        assert_eq!(read(&early, "a"), "old");
        let latest = node.pod("app", "3");
        node.publish(&latest).await.unwrap();
        assert_eq!(read(&latest, "a"), "new");
        let late = node.pod("pinned", "4");
        if is_outage {
            fail(&node, json!({"status": 502})).await;
            let error = node.publish(&late).await.expect_err("an outage");
            assert_eq!(error.code(), Code::Internal);
            continue;
        }
        node.publish(&late).await.unwrap();
        assert_eq!(read(&late, "a"), "new");
        node.pass(2 * SECOND).await;
        node.publish(&running).await.unwrap();
        assert_eq!(read(&running, "a"), "new");
    }
}

#[tokio::test]
async fn a_pinned_version_that_the_new_secret_does_not_have_is_not_served() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.put("a", "two", &[]).await;
    node.put("a", "three", &[]).await;
    node.apply_for("pinned", &PINNED.replace("v1", "v3"), &["a"])
        .await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    node.publish(&node.pod("pinned", "1")).await.unwrap();
    node.delete("a").await;
    node.create("a", "new").await;
    node.publish(&node.pod("app", "2")).await.unwrap();
    let error = node.publish(&node.pod("pinned", "3")).await;
    assert_eq!(error.expect_err("no v3").code(), Code::NotFound);
}

#[tokio::test]
async fn a_higher_version_or_a_moved_stage_contradicts_nothing() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.put("a", "two", &[]).await;
    for version in ["v1", "v2"] {
        let objects = PINNED.replace("v1", version);
        node.apply_for(version, &objects, &["a"]).await;
        node.publish(&node.pod(version, version)).await.unwrap();
    }
    node.move_stage("a", "SYSCURRENT", "v1").await;
    let stage = "- {objectName: a, objectType: csms, stage: SYSCURRENT}";
    node.apply_for("stage", stage, &["a"]).await;
    node.publish(&node.pod("stage", "3")).await.unwrap();
    node.put("a", "three", &[]).await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    node.publish(&node.pod("app", "4")).await.unwrap();
    let calls = node.calls("ShowSecretVersion").await;
    for version in ["v1", "v2"] {
        let uid = format!("again-{version}");
        node.publish(&node.pod(version, &uid)).await.unwrap();
    }
    assert_eq!(node.calls("ShowSecretVersion").await, calls);
}

#[tokio::test]
async fn a_stage_of_a_secret_made_anew_is_not_served_from_the_old_one() {
    let node = TestNode::new().await;
    node.create("a", "old").await;
    let stage = "- {objectName: a, objectType: csms, stage: SYSCURRENT}";
    node.apply_for("app", stage, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    node.delete("a").await;
    node.create("a", "new").await;
    node.pass(11 * SECOND).await;
    let pod = node.pod("app", "2");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
}

/// What the service says of a secret as a whole applies to all its versions.
#[tokio::test]
async fn a_disabled_secret_ends_its_pinned_versions_too() {
    let node = node_with_mounted_pod(Setup::default()).await;
    node.apply_for("pinned", PINNED, &["a"]).await;
    node.publish(&node.pod("pinned", "2")).await.unwrap();
    node.set_state("a", "DISABLED").await;
    let error = node.publish(&node.pod("app", "3")).await;
    assert_eq!(
        error.expect_err("disabled").code(),
        Code::FailedPrecondition
    );
    fail(&node, json!({"status": 502})).await;
    node.pass(3601 * SECOND).await;
    assert!(node.publish(&node.pod("pinned", "4")).await.is_err());
}

/// One "not found" may be a mistake, also about a version that was never fetched.
#[tokio::test]
async fn one_not_found_ends_no_other_version() {
    let node = TestNode::new().await;
    node.create("a", "the value").await;
    node.apply_for("pinned", PINNED, &["a"]).await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    node.publish(&node.pod("pinned", "1")).await.unwrap();
    let once =
        json!({"match": {"operation": "ShowSecretVersion"}, "times": 1, "fault": not_found()});
    node.fault(once).await;
    let error = node.publish(&node.pod("app", "2")).await;
    assert_eq!(error.expect_err("none").code(), Code::NotFound);
    // A new pod asks again, although v1 was confirmed a moment ago.
    let calls = node.calls("ShowSecretVersion").await;
    node.publish(&node.pod("pinned", "3")).await.unwrap();
    assert_eq!(node.calls("ShowSecretVersion").await, calls + 1);
    node.fault(
        json!({"match": {"operation": "ShowSecretVersion"}, "times": 1, "fault": not_found()}),
    )
    .await;
    assert!(node.publish(&node.pod("app", "4")).await.is_err());
    fail(&node, json!({"status": 502})).await;
    let pod = node.pod("pinned", "5");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value");
}

#[tokio::test]
async fn a_revision_of_a_secret_made_anew_counts_on_nodes_that_only_pin_it() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "old").await;
    cluster.apply_one("pinned", "a", "objectVersion: v1");
    cluster.apply_one("app", "a", "objectVersion: latest");
    cluster.pod(0, "app", "1").await;
    cluster.pod(1, "pinned", "2").await;
    cluster.live(2 * cluster::INTERVAL).await;
    cluster.delete("a").await;
    cluster.create("a", "new").await;
    cluster.live(cluster::INTERVAL + SECOND).await;
    let pod = cluster.pod(1, "pinned", "3").await;
    assert_eq!(read(&pod, "a"), "new");
}

#[tokio::test]
async fn the_leader_publishes_that_a_secret_is_gone_after_two_polls() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.create("b", "of b").await;
    let objects = "\
- {objectName: a, objectType: csms, objectVersion: latest}
- {objectName: b, objectType: csms, objectVersion: latest, optional: true}";
    cluster.apply("app", &[("objects", objects)], &["a", "b"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * cluster::INTERVAL).await;
    let once = json!({"match": {"operation": "ListSecretVersions", "secret": "b"}, "times": 1, "fault": not_found()});
    cluster.fault(once).await;
    let reason = || {
        let revision = cluster.revision("b").unwrap();
        revision["status"]["conditions"][0]["reason"].clone()
    };
    cluster
        .until(cluster::INTERVAL + SECOND, || reason() == "NotFoundOnce")
        .await;
    cluster.publish(0, &pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
    cluster
        .until(cluster::INTERVAL + SECOND, || reason() == "Confirmed")
        .await;
    cluster.delete("b").await;
    cluster
        .until(cluster::INTERVAL + SECOND, || reason() == "NotFoundOnce")
        .await;
    cluster.publish(0, &pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
    cluster
        .until(cluster::INTERVAL + SECOND, || reason() == "NotFound")
        .await;
    cluster.live(2 * SECOND).await;
    cluster.publish(0, &pod).await.unwrap();
    assert!(!pod.target_path.join("b").exists());
}

#[tokio::test]
async fn the_second_poll_of_a_secret_that_was_not_found_does_not_wait_for_a_long_interval() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest, optional: true}";
    let parameters = [("objects", objects), ("rotationPollInterval", "30m")];
    cluster.apply("app", &parameters, &["a"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(31 * cluster::INTERVAL).await;
    cluster.delete("a").await;
    let reason = || {
        let revision = cluster.revision("a").unwrap();
        revision["status"]["conditions"][0]["reason"].clone()
    };
    cluster
        .until(31 * cluster::INTERVAL, || reason() == "NotFoundOnce")
        .await;
    cluster
        .until(2 * cluster::INTERVAL, || reason() == "NotFound")
        .await;
    cluster.live(2 * SECOND).await;
    cluster.publish(0, &pod).await.unwrap();
    assert!(!pod.target_path.join("a").exists());
}
