//! A mounted volume whose ServiceAccount no longer lists its secrets: noticed within a minute, also when nobody
//! asks, and reported once.

use std::collections::BTreeSet;
use std::time::Duration;

use dew_provider::sim::csi_driver::PodVolume;
use serde_json::{Value, json};

use super::FOLLOWS_A;
use crate::support::cluster::{Cluster, INTERVAL, SECOND, read};
use crate::support::paused_clock::drive;
use crate::support::test_node::{self, TestNode};

const REASON: &str = "SecretAccessRevoked";
const REVOKED: &str = "dew_provider_revoked_volumes";
const MINUTE: Duration = Duration::from_secs(60);

/// A cluster without new versions and without kubelet's calls, so that nothing but time passes.
async fn cluster() -> (Cluster, PodVolume) {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    let parameters = [("objects", FOLLOWS_A), ("rotationPollInterval", "1440m")];
    cluster.apply("app", &parameters, &["a"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * SECOND).await;
    (cluster, pod)
}

#[tokio::test]
async fn an_emptied_list_is_noticed_within_a_minute_and_reported_once() {
    let (cluster, pod) = cluster().await;
    cluster.live(2 * MINUTE).await;
    assert!(cluster.events_with_reason(REASON).is_empty());
    cluster.api.put_account("default", "app", Some("[]"));
    cluster.live(MINUTE).await;
    let events = cluster.events_with_reason(REASON);
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    for text in [
        "app-1: ",
        "keeps its files until the pod ends, and gets no new versions",
        "ServiceAccount default/app does not list \"a\" in its annotation cce.io/dew-resource: add it there",
        "or remove it from SecretProviderClass \"app\"",
    ] {
        assert!(event.contains(text), "{text}: {event}");
    }
    assert_eq!(cluster.metric(0, REVOKED).await, 1.0);
    // Neither more time, nor kubelet's call, nor a new version adds an Event or a value.
    cluster.put("a", "two", &[]).await;
    cluster.live(2 * MINUTE).await;
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(MINUTE).await;
    assert_eq!(read(&pod, "a"), "one");
    assert_eq!(cluster.events_with_reason(REASON).len(), 1);
    let others = cluster.events_with_reason("SecretRotationFailed");
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn a_restored_list_makes_the_volume_follow_again() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(INTERVAL).await;
    cluster.api.put_account("default", "app", None);
    cluster.live(MINUTE).await;
    assert_eq!(cluster.metric(0, REVOKED).await, 1.0);
    cluster.put("a", "two", &[]).await;
    cluster.live(2 * INTERVAL).await;
    assert_eq!(read(&pod, "a"), "one");
    cluster.api.put_account("default", "app", Some("[\"a\"]"));
    cluster.until(2 * MINUTE, || read(&pod, "a") == "two").await;
    assert_eq!(cluster.metric(0, REVOKED).await, 0.0);
}

#[tokio::test]
async fn a_deleted_account_revokes_and_an_unreadable_one_does_not() {
    let (cluster, _pod) = cluster().await;
    let accounts = "serviceaccounts";
    cluster.api.0.fail_resource(accounts, Some(500));
    cluster.live(2 * MINUTE).await;
    assert!(cluster.events_with_reason(REASON).is_empty());
    cluster.api.0.fail_resource(accounts, None);
    cluster.api.0.remove(accounts, "default", "app");
    cluster.live(MINUTE).await;
    let events = cluster.events_with_reason(REASON);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].contains("ServiceAccount default/app does not exist"),
        "{events:?}"
    );
}

/// An uninstalled application takes its ServiceAccount along, often before its pods have ended.
#[tokio::test]
async fn a_pod_that_ends_with_its_account_is_not_reported() {
    let (cluster, pod) = cluster().await;
    let ending = json!({"deletionTimestamp": "2026-01-02T04:00:00Z"});
    cluster.put_pod(0, &pod, ending);
    cluster.api.0.remove("serviceaccounts", "default", "app");
    cluster.live(MINUTE).await;
    cluster.end_pod(0, &pod);
    cluster.live(2 * MINUTE).await;
    let events = cluster.api.events();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(cluster.metric(0, REVOKED).await, 0.0);
}

#[tokio::test]
async fn one_read_per_account_is_enough_for_all_its_volumes() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    for uid in 0..20 {
        node.publish(&node.pod("app", &uid.to_string()))
            .await
            .unwrap();
    }
    let before = node.api.account_reads();
    drive(tokio::time::sleep(5 * MINUTE)).await;
    let reads = node.api.account_reads() - before;
    assert!((5..=8).contains(&reads), "{reads}");
    // Kubelet's calls find what the checks have read.
    for uid in 0..20 {
        node.publish(&node.pod("app", &uid.to_string()))
            .await
            .unwrap();
    }
    assert!(node.api.account_reads() - before <= reads + 1);
    // Also for a volume that is revoked.
    node.api.put_account("default", "app", Some("[]"));
    drive(tokio::time::sleep(MINUTE)).await;
    let before = node.api.account_reads();
    drive(tokio::time::sleep(5 * MINUTE)).await;
    let reads = node.api.account_reads() - before;
    assert!((5..=8).contains(&reads), "{reads}");
}

/// Kubelet's call may come before the check: the Event is the same one.
#[tokio::test]
async fn a_mount_that_notices_it_first_writes_the_same_event() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    node.api.put_account("default", "app", Some("[\"b\"]"));
    node.pass(MINUTE + SECOND).await;
    node.publish(&pod).await.unwrap();
    drive(tokio::time::sleep(2 * MINUTE)).await;
    let events = node.api.events();
    let reasons: Vec<_> = events.iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, [&json!(REASON)], "{events:?}");
    assert_eq!(test_node::read(&pod, "a"), "one");
}

/// Also if other Warnings of the namespace have used up their budget.
#[tokio::test]
async fn every_pod_of_a_namespace_gets_its_event() {
    const PODS: usize = 60;
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    let long = "p".repeat(250);
    for index in 0..PODS {
        let scheduled = cluster.scheduled(0, "app", &index.to_string());
        let pod = PodVolume {
            pod: format!("{long}-{index:02}"),
            ..scheduled
        };
        cluster.put_pod(0, &pod, json!({}));
        cluster.publish(0, &pod).await.unwrap();
    }
    cluster.live(INTERVAL).await;
    for index in 0..30 {
        let name = format!("wrong-{index}");
        cluster.apply(&name, &[("objects", "- {objectName: a}")], &[]);
    }
    cluster.live(5 * SECOND).await;
    cluster.api.put_account("default", "app", Some("[]"));
    cluster.live(10 * MINUTE).await;
    let events = cluster.api.events();
    let of_pod = |event: &&Value| event["reason"] == REASON;
    let pods: BTreeSet<_> = (events.iter().filter(of_pod))
        .map(|event| event["regarding"]["name"].to_string())
        .collect();
    assert_eq!(pods.len(), PODS);
    assert_eq!(events.iter().filter(of_pod).count(), PODS, "one each");
    // The API server refuses longer names.
    for event in &events {
        let name = event["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 253, "{name}");
    }
}
