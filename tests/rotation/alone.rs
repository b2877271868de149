//! Nodes that ask for themselves: without a leader, for pods with keys of their own, and what an
//! outage of the cloud does to all of them.

use dew_provider::emulator::{DEMO_ACCESS_KEY, DEMO_SECRET_KEY};
use serde_json::json;

use super::super::support::api_server::{LEASES, RECORDS, REVISIONS};
use super::super::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};
use super::super::support::logs::Logs;

const LATEST: &str = "objectVersion: latest";

#[tokio::test]
async fn a_pod_with_keys_of_its_own_is_followed_under_them() {
    let cluster = Cluster::with(Setup {
        nodes: 2,
        env: Vec::new(),
        emulator: dew_provider::emulator::Config {
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
async fn without_a_leader_each_node_asks_for_itself() {
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
    // The first one may have led for a moment.
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
async fn an_outage_of_the_cloud_is_the_leaders_alone() {
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
    // A new pod starts all the same.
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
async fn an_optional_secret_that_is_made_later_arrives() {
    let cluster = Cluster::of(2).await;
    let objects = format!("- {{objectName: a, objectType: csms, {LATEST}, optional: true}}");
    cluster.apply("app", &[("objects", &objects)], &["a"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    cluster.create("a", "made").await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pod, "a") == "made")
        .await;
}

/// Neither the value nor a pod's keys are in what is logged, told or written.
#[tokio::test]
async fn nothing_secret_is_seen_on_the_way() {
    const CANARY: &str = "CANARY-77aa21";
    let logs = Logs::capture();
    let cluster = Cluster::of(2).await;
    cluster.create("a", format!("{CANARY} one")).await;
    cluster.apply_one("app", "a", LATEST);
    let mut own = cluster.scheduled(0, "app", "1");
    let keys = [
        ("accessKey", DEMO_ACCESS_KEY),
        ("secretKey", DEMO_SECRET_KEY),
    ];
    own.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    cluster.put_pod(0, &own, json!({}));
    cluster.publish(0, &own).await.unwrap();
    let other = cluster.pod(1, "app", "2").await;
    cluster.live(INTERVAL).await;
    let two = format!("{CANARY} two");
    cluster.put("a", two.as_str(), &[]).await;
    let both = || read(&own, "a") == two && read(&other, "a") == two;
    cluster.until(INTERVAL + 8 * SECOND, both).await;
    cluster.apply_one("app", "missing", LATEST);
    cluster.live(2 * SECOND).await;
    cluster.delete("a").await;
    cluster.live(3 * INTERVAL).await;
    let mut seen = String::new();
    for resource in [REVISIONS, LEASES, RECORDS, "events.events.k8s.io"] {
        let all = cluster.api.0.list(resource);
        assert!(!all.is_empty(), "{resource}");
        seen += &format!("{all:?}");
    }
    let logs = logs.text();
    assert!(logs.contains("nudged") && logs.contains("rotated"));
    for text in [&logs, &seen] {
        for secret in [CANARY, DEMO_SECRET_KEY] {
            if let Some(at) = text.find(secret) {
                let around = &text[text.floor_char_boundary(at.saturating_sub(200))..at];
                panic!("{secret} is there after {around:?}");
            }
        }
    }
}

/// What the leader confirms counts as confirmed: a secret that was quiet for longer than the limit
/// still starts pods in an outage.
#[tokio::test]
async fn a_quiet_secret_stands_in_for_as_long_as_it_was_confirmed() {
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
    // The limit counts from the last confirmation.
    cluster.live(800 * SECOND).await;
    let late = cluster.scheduled(0, "app", "3");
    assert!(cluster.publish(0, &late).await.is_err());
}

/// The "no" that the leader got is remembered by the nodes, whatever comes after it.
#[tokio::test]
async fn what_the_leader_was_refused_does_not_stand_in() {
    for gone in [true, false] {
        let cluster = Cluster::of(2).await;
        cluster.create("a", "one").await;
        cluster.apply_one("app", "a", LATEST);
        let pod = cluster.pod(0, "app", "1").await;
        cluster.live(2 * INTERVAL).await;
        if gone {
            cluster.delete("a").await;
        } else {
            let refusal = json!({"status": 403, "code": "CSMS.0109"});
            cluster.fault(json!({"fault": refusal})).await;
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
        assert!(cluster.publish(0, &new).await.is_err(), "gone: {gone}");
        assert_eq!(read(&pod, "a"), "one");
    }
}

/// An optional secret that is deleted goes from running pods.
#[tokio::test]
async fn an_optional_secret_that_is_deleted_goes() {
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
    // Nothing goes on because of it, and it comes back.
    cluster.live(INTERVAL).await;
    cluster.create("b", "again").await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pod, "b") == "again")
        .await;
}

/// Pods that ended, whether or not anybody nudged them, are neither asked for nor told of.
#[tokio::test]
async fn what_ended_pods_had_is_not_asked_for() {
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
