//! Rotation without a leader, for pods with their own keys, during outages of the cloud, and for
//! secrets that are deleted or no longer mounted.

use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_SECRET_KEY};
use serde_json::json;

use crate::support::api_server::{LEASES, RECORDS, REVISIONS};
use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};
use crate::support::logs::Logs;

const LATEST: &str = "objectVersion: latest";

#[tokio::test]
async fn a_pod_with_its_own_keys_receives_new_versions() {
    let cluster = Cluster::with(Setup {
        nodes: 2,
        env: Vec::new(),
        emulator: dew_provider::sim::huawei::Config {
            agency: false,
            ..Default::default()
        },
        ..Setup::default()
    })
    .await;
    cluster.create("a", "one").await;
    let objects = format!("- {{objectName: a, objectType: csms, {LATEST}}}");
    let parameters = [
        ("objects", objects.as_str()),
        ("credentials", "nodePublishSecretRef"),
    ];
    cluster.apply("app", &parameters, &["a"]);
    let mut pod = cluster.scheduled(0, "app", "1");
    let keys = [
        ("accessKey", DEMO_ACCESS_KEY),
        ("secretKey", DEMO_SECRET_KEY),
    ];
    pod.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    cluster.put_pod(0, &pod, json!({}));
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(INTERVAL).await;
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pod, "a") == "two")
        .await;
    assert_eq!(cluster.calls("ListSecretVersions").await, 0);
    assert!(cluster.revision("a").is_none());
}

#[tokio::test]
async fn without_a_leader_each_node_polls_on_its_own() {
    let cluster = Cluster::of(3).await;
    cluster
        .api
        .0
        .fail_resource("leases.coordination.k8s.io", Some(403));
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let mut pods = Vec::new();
    for node in 0..3 {
        pods.push(cluster.pod(node, "app", &node.to_string()).await);
    }
    // The first node may have led for a moment.
    cluster.live(3 * INTERVAL).await;
    cluster.clear_calls().await;
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 8 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
    cluster.live(3 * INTERVAL).await;
    let calls = cluster.calls("ShowSecretVersion").await;
    assert!((9..=15).contains(&calls), "{calls}");
}

#[tokio::test]
async fn only_the_leader_polls_during_a_cloud_outage() {
    let cluster = Cluster::of(3).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let mut pods = Vec::new();
    for node in 0..3 {
        pods.push(cluster.pod(node, "app", &node.to_string()).await);
    }
    cluster.live(2 * INTERVAL).await;
    cluster.fault(json!({"fault": {"status": 502}})).await;
    cluster.live(2 * INTERVAL).await;
    cluster.clear_calls().await;
    for _ in 0..4 {
        cluster.live(INTERVAL).await;
        for (node, pod) in pods.iter().enumerate() {
            cluster.publish(node, pod).await.unwrap();
            assert_eq!(read(pod, "a"), "one");
        }
    }
    assert_eq!(cluster.calls("ShowSecretVersion").await, 0);
    let revision = cluster.revision("a").unwrap();
    assert_eq!(revision["status"]["conditions"][0]["reason"], "Server");
    // A new pod still starts.
    let new = cluster.pod(1, "app", "new").await;
    assert_eq!(read(&new, "a"), "one");
    cluster.clear_faults().await;
    cluster.put("a", "two", &[]).await;
    pods.push(new);
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn an_optional_secret_arrives_once_it_is_created() {
    let cluster = Cluster::of(2).await;
    let objects = format!("- {{objectName: a, objectType: csms, {LATEST}, optional: true}}");
    cluster.apply("app", &[("objects", &objects)], &["a"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    cluster.create("a", "created").await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pod, "a") == "created")
        .await;
}

/// Neither values nor a pod's keys appear in logs, Events, SecretRevisions, the Lease or the driver's
/// records.
#[tokio::test]
async fn rotation_never_reveals_values_or_keys() {
    const CANARY: &str = "CANARY-77aa21";
    let logs = Logs::capture();
    let cluster = Cluster::of(2).await;
    cluster.create("a", format!("{CANARY} one")).await;
    cluster.apply_one("app", "a", LATEST);
    let mut with_keys = cluster.scheduled(0, "app", "1");
    let keys = [
        ("accessKey", DEMO_ACCESS_KEY),
        ("secretKey", DEMO_SECRET_KEY),
    ];
    with_keys.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    cluster.put_pod(0, &with_keys, json!({}));
    cluster.publish(0, &with_keys).await.unwrap();
    let other = cluster.pod(1, "app", "2").await;
    cluster.live(INTERVAL).await;
    let two = format!("{CANARY} two");
    cluster.put("a", two.as_str(), &[]).await;
    let is_delivered = || read(&with_keys, "a") == two && read(&other, "a") == two;
    cluster.until(INTERVAL + 8 * SECOND, is_delivered).await;
    cluster.apply_one("app", "missing", LATEST);
    cluster.live(2 * SECOND).await;
    cluster.delete("a").await;
    cluster.live(3 * INTERVAL).await;
    let mut written = String::new();
    for resource in [REVISIONS, LEASES, RECORDS, "events.events.k8s.io"] {
        let all = cluster.api.0.list(resource);
        assert!(!all.is_empty(), "{resource}");
        written += &format!("{all:?}");
    }
    let logs = logs.text();
    assert!(logs.contains("nudged") && logs.contains("rotated"));
    for text in [&logs, &written] {
        for secret in [CANARY, DEMO_SECRET_KEY] {
            if let Some(at) = text.find(secret) {
                let around = &text[text.floor_char_boundary(at.saturating_sub(200))..at];
                panic!("{secret} appears after {around:?}");
            }
        }
    }
}

/// In an outage, pods start with a value that was fetched longer ago than the limit if the leader
/// confirmed it since.
#[tokio::test]
async fn the_stale_limit_counts_from_the_leaders_last_confirmation() {
    let cluster = Cluster::with(Setup {
        nodes: 2,
        stale_limit: 600 * SECOND,
        ..Setup::default()
    })
    .await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(1200 * SECOND).await;
    assert_eq!(cluster.calls("ShowSecretVersion").await, 1);
    cluster.fault(json!({"fault": {"status": 502}})).await;
    let new = cluster.pod(0, "app", "2").await;
    assert_eq!(
        (read(&pod, "a"), read(&new, "a")),
        ("one".into(), "one".into())
    );
    // The limit has passed since the last confirmation.
    cluster.live(800 * SECOND).await;
    let late = cluster.scheduled(0, "app", "3");
    assert!(cluster.publish(0, &late).await.is_err());
}

/// Nodes remember a rejection that the leader received, even if an outage follows.
#[tokio::test]
async fn a_rejected_poll_of_the_leader_stops_stale_serving() {
    for is_deleted in [true, false] {
        let cluster = Cluster::of(2).await;
        cluster.create("a", "one").await;
        cluster.apply_one("app", "a", LATEST);
        let pod = cluster.pod(0, "app", "1").await;
        cluster.live(2 * INTERVAL).await;
        if is_deleted {
            cluster.delete("a").await;
        } else {
            let rejection = json!({"status": 403, "code": "CSMS.0109"});
            cluster.fault(json!({"fault": rejection})).await;
        }
        cluster.live(2 * INTERVAL).await;
        assert_eq!(
            cluster.revision("a").unwrap()["status"]["conditions"][0]["status"],
            "False"
        );
        cluster.clear_faults().await;
        cluster.fault(json!({"fault": {"status": 502}})).await;
        cluster.live(20 * SECOND).await;
        let new = cluster.scheduled(0, "app", "2");
        assert!(
            cluster.publish(0, &new).await.is_err(),
            "deleted: {is_deleted}"
        );
        assert_eq!(read(&pod, "a"), "one");
    }
}

#[tokio::test]
async fn a_deleted_optional_secret_is_removed_from_running_pods() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.create("b", "of b").await;
    let objects = format!(
        "- {{objectName: a, objectType: csms, {LATEST}}}\n\
         - {{objectName: b, objectType: csms, {LATEST}, optional: true}}"
    );
    cluster.apply("app", &[("objects", &objects)], &["a", "b"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    cluster.delete("b").await;
    cluster.live(2 * INTERVAL).await;
    cluster.clear_calls().await;
    cluster.publish(0, &pod).await.unwrap();
    assert!(!pod.target_path.join("b").exists());
    assert_eq!(read(&pod, "a"), "one");
    assert_eq!(cluster.calls("ShowSecretVersion").await, 0);
    // A recreated secret arrives again.
    cluster.live(INTERVAL).await;
    cluster.create("b", "again").await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pod, "b") == "again")
        .await;
}

/// Secrets that only ended pods mounted are neither polled nor counted as unconfirmed.
#[tokio::test]
async fn secrets_of_ended_pods_are_not_polled() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let pods = [
        cluster.pod(0, "app", "1").await,
        cluster.pod(1, "app", "2").await,
    ];
    cluster.live(2 * INTERVAL).await;
    for (node, pod) in pods.iter().enumerate() {
        cluster.end_pod(node, pod);
    }
    cluster.live(6 * INTERVAL).await;
    cluster.delete("a").await;
    cluster.clear_calls().await;
    cluster.live(30 * INTERVAL).await;
    for operation in ["ListSecretVersions", "ShowSecretVersion"] {
        assert_eq!(cluster.calls(operation).await, 0, "{operation}");
    }
    let oldest = "dew_provider_rotation_oldest_unconfirmed_seconds";
    assert_eq!(cluster.metric(0, oldest).await, 0.0);
}
