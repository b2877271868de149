//! What CSMS rejected stays rejected until it returns a version, whoever asks and whatever fails in between; and
//! what was not asked is neither a rejection nor an outage.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tonic::Code;

use super::{FOLLOWS_A, node_with_mounted_pod};
use crate::support::cluster::{self, Cluster, INTERVAL};
use crate::support::test_node::{Setup, TestNode, read};

const SECOND: Duration = Duration::from_secs(1);
const PINNED: &str = "- {objectName: a, objectType: csms, objectVersion: v1}";
const WITH_OPTIONAL: &str = "\
- {objectName: a, objectType: csms, objectVersion: latest}
- {objectName: b, objectType: csms, objectVersion: latest, optional: true}";

fn reason(cluster: &Cluster, secret: &str) -> Value {
    let revision = cluster.revision(secret).unwrap();
    revision["status"]["conditions"][0]["reason"].clone()
}

/// A cluster whose pods have the file of an optional secret.
async fn with_optional_secret(
    nodes: usize,
) -> (Cluster, Vec<dew_provider::sim::csi_driver::PodVolume>) {
    let cluster = Cluster::of(nodes).await;
    cluster.create("a", "one").await;
    cluster.create("b", "of b").await;
    cluster.apply("app", &[("objects", WITH_OPTIONAL)], &["a", "b"]);
    let mut pods = Vec::new();
    for node in 0..nodes {
        pods.push(cluster.pod(node, "app", &node.to_string()).await);
    }
    cluster.live(2 * INTERVAL).await;
    (cluster, pods)
}

#[tokio::test]
async fn a_deleted_secret_does_not_come_back_when_a_later_poll_fails() {
    for fault in [json!({"status": 502}), json!({"status": 429})] {
        let (cluster, pods) = with_optional_secret(2).await;
        cluster.delete("b").await;
        cluster
            .until(4 * INTERVAL, || reason(&cluster, "b") == "NotFound")
            .await;
        cluster.live(5 * SECOND).await;
        let rule = json!({"match": {"secret": "b"}, "fault": fault});
        for is_failing in [false, true, false] {
            if is_failing {
                cluster.fault(rule.clone()).await;
            } else {
                cluster.clear_faults().await;
            }
            for _ in 0..4 {
                cluster.live(INTERVAL / 2).await;
                for (node, pod) in pods.iter().enumerate() {
                    cluster.publish(node, pod).await.unwrap();
                    assert_eq!(cluster::read(pod, "b"), "", "{fault}");
                }
            }
            assert_eq!(reason(&cluster, "b"), "NotFound");
        }
        // Also not in a new pod, which starts without it.
        cluster.fault(rule).await;
        cluster.live(2 * INTERVAL).await;
        let new = cluster.pod(0, "app", "new").await;
        assert_eq!(cluster::read(&new, "a"), "one");
        assert_eq!(cluster::read(&new, "b"), "");
    }
}

#[tokio::test]
async fn a_disabled_secret_reaches_no_new_pod_that_pins_a_version() {
    for state in ["DISABLED", "PENDING_DELETE"] {
        let node = node_with_mounted_pod(Setup::default()).await;
        node.apply_for("pinned", PINNED, &["a"]).await;
        node.publish(&node.pod("pinned", "2")).await.unwrap();
        node.set_state("a", state).await;
        node.publish(&node.pod("app", "3")).await.expect_err(state);
        node.publish(&node.pod("pinned", "4"))
            .await
            .expect_err(state);
        node.fault(json!({"match": {}, "fault": {"status": 502}}))
            .await;
        node.publish(&node.pod("pinned", "5"))
            .await
            .expect_err(state);
    }
}

#[tokio::test]
async fn what_the_leader_rejects_reaches_no_new_pod_on_any_node() {
    for is_deleted in [false, true] {
        let cluster = Cluster::of(2).await;
        cluster.create("a", "one").await;
        cluster.apply("pinned", &[("objects", PINNED)], &["a"]);
        cluster.apply("app", &[("objects", FOLLOWS_A)], &["a"]);
        cluster.pod(0, "app", "1").await;
        cluster.pod(1, "pinned", "2").await;
        cluster.live(2 * INTERVAL).await;
        if is_deleted {
            cluster.delete("a").await;
        } else {
            // The list of versions is refused too.
            cluster.set_state("a", "DISABLED").await;
            let refused = json!({"status": 403, "code": "CSMS.0109"});
            let rule = json!({"match": {"operation": "ListSecretVersions"}, "fault": refused});
            cluster.fault(rule).await;
        }
        cluster.live(4 * INTERVAL).await;
        let pod = cluster.scheduled(1, "pinned", "3");
        cluster.publish(1, &pod).await.expect_err("rejected");
        cluster
            .fault(json!({"match": {}, "fault": {"status": 502}}))
            .await;
        for (uid, class) in [("4", "pinned"), ("5", "app")] {
            let pod = cluster.scheduled(1, class, uid);
            cluster.publish(1, &pod).await.expect_err("an outage");
            assert_eq!(cluster::read(&pod, "a"), "");
        }
    }
}

#[tokio::test]
async fn two_polls_at_once_count_as_one_not_found() {
    let (mut cluster, _pods) = with_optional_secret(2).await;
    let twice = json!({"match": {"operation": "ListSecretVersions", "secret": "b"}, "times": 2,
        "fault": {"status": 404, "code": "CSMS.0106"}});
    cluster.fault(twice).await;
    cluster
        .until(2 * INTERVAL, || reason(&cluster, "b") == "NotFoundOnce")
        .await;
    // The next leader polls at once.
    let leader = usize::from(cluster.leader() != "node-0");
    cluster.restart(leader).await;
    cluster.live(4 * SECOND).await;
    assert_eq!(reason(&cluster, "b"), "NotFoundOnce");
    cluster
        .until(3 * INTERVAL, || reason(&cluster, "b") == "Confirmed")
        .await;
}

#[tokio::test]
async fn not_found_hours_apart_are_not_two_in_a_row() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.apply("app", &[("objects", FOLLOWS_A)], &["a"]);
    cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    for uid in ["2", "3"] {
        let once = json!({"match": {"operation": "ShowSecretVersion"}, "times": 1,
            "fault": {"status": 404, "code": "CSMS.0106"}});
        cluster.fault(once).await;
        let pod = cluster.scheduled(0, "app", uid);
        cluster.publish(0, &pod).await.expect_err("not found");
        cluster.live(4 * INTERVAL).await;
    }
    let outage = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}});
    cluster.fault(outage).await;
    let pod = cluster.pod(0, "app", "4").await;
    assert_eq!(cluster::read(&pod, "a"), "one");
}

#[tokio::test]
async fn the_providers_own_rate_limit_is_no_outage() {
    let node = TestNode::with(Setup {
        qps: 5,
        ..Setup::default()
    })
    .await;
    let mut classes = Vec::new();
    for class in 0..4 {
        let names: Vec<String> = (0..30).map(|i| format!("s{class}-{i}")).collect();
        let mut objects = String::new();
        for name in &names {
            node.create(name, "old").await;
            objects +=
                &format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n");
        }
        let listed: Vec<&str> = names.iter().map(String::as_str).collect();
        node.apply_for(&format!("app{class}"), &objects, &listed)
            .await;
        node.pass(30 * SECOND).await;
        let pod = node.pod(&format!("app{class}"), &format!("{class}-1"));
        node.publish(&pod).await.unwrap();
        classes.push(names);
    }
    for name in classes.iter().flatten() {
        node.put(name, "new", &[]).await;
    }
    node.pass(300 * SECOND).await;
    let pods: Vec<_> = (0..4)
        .map(|class| node.pod(&format!("app{class}"), &format!("{class}-2")))
        .collect();
    let results = join_all(pods.iter().map(|pod| node.publish(pod))).await;
    for ((pod, names), result) in pods.iter().zip(&classes).zip(results) {
        match result {
            Ok(()) => assert!(names.iter().all(|name| read(pod, name) == "new")),
            Err(error) => assert!(
                error.message().contains("client-side rate limit"),
                "{error}"
            ),
        }
    }
    node.pass(2 * SECOND).await;
    let events = node.api.events();
    assert!(
        !events
            .iter()
            .any(|event| event["reason"] == "SecretNotConfirmed"),
        "{events:?}"
    );
}

#[tokio::test]
async fn remounts_do_not_ask_for_a_missing_optional_secret() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.apply("app", &[("objects", WITH_OPTIONAL)], &["a", "b"]);
    let pods = [
        cluster.pod(0, "app", "0").await,
        cluster.pod(1, "app", "1").await,
    ];
    // The first minutes, in which it is asked for more often.
    let remounts = async |count: u32| {
        for _ in 0..count {
            cluster.live(75 * SECOND).await;
            for (node, pod) in pods.iter().enumerate() {
                cluster.publish(node, pod).await.unwrap();
            }
        }
    };
    remounts(8).await;
    cluster.clear_calls().await;
    remounts(16).await;
    let calls = cluster.calls("ShowSecretVersion").await;
    assert!(calls <= 4, "{calls} calls in 20 minutes of two nodes");
    cluster.create("b", "now").await;
    cluster
        .until(9 * INTERVAL, || cluster::read(&pods[0], "b") == "now")
        .await;
}

#[tokio::test]
async fn a_waiting_pod_is_told_how_old_the_answer_is() {
    let node = TestNode::new().await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    for uid in ["1", "2"] {
        let error = node
            .publish(&node.pod("app", uid))
            .await
            .expect_err("missing");
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(
            error.message().contains("answer of 3 s ago"),
            uid == "2",
            "{error}"
        );
        node.pass(3 * SECOND).await;
    }
    node.create("a", "the value").await;
    node.pass(20 * SECOND).await;
    node.publish(&node.pod("app", "3")).await.unwrap();
}
