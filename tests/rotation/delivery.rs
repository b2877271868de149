//! A new version reaches every running pod, and leaves nothing behind for pods that ended.

use dew_provider::sim::csi_driver::PodVolume;
use serde_json::json;

use crate::support::api_server::RECORDS;
use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};

const LATEST: &str = "objectVersion: latest";

async fn mount_pods(cluster: &Cluster, per_node: usize) -> Vec<PodVolume> {
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let mut pods = Vec::new();
    for node in 0..cluster.nodes.len() {
        for index in 0..per_node {
            pods.push(cluster.pod(node, "app", &format!("{node}-{index}")).await);
        }
    }
    pods
}

#[tokio::test]
async fn a_new_version_reaches_every_pod_within_the_interval_and_the_spread() {
    let cluster = Cluster::new().await;
    let pods = mount_pods(&cluster, 4).await;
    // One fetch per node, however many pods.
    assert_eq!(cluster.calls("ShowSecretVersion").await, 3);
    cluster.live(2 * INTERVAL).await;
    cluster.clear_calls().await;
    cluster.put("a", "two", &[]).await;
    let took = cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
    assert!(took > SECOND, "delivered before the next poll: {took:?}");
    cluster.live(2 * INTERVAL - took).await;
    assert_eq!(cluster.calls("ShowSecretVersion").await, 3);
    // One poll per interval for the cluster.
    assert_eq!(cluster.calls("ListSecretVersions").await, 2);
    let events = cluster.events_with_reason("SecretRotated");
    assert_eq!(events.len(), 12, "{events:?}");
    assert!(
        events.contains(&r#"app-0-0: "a" v1 → v2"#.to_owned()),
        "{events:?}"
    );
    let records = cluster.api.0.list(RECORDS);
    assert!(records.iter().all(|record| {
        let version = record["status"]["objects"][0]["version"].as_str();
        version.is_some_and(|version| version.starts_with("v2-"))
    }));
    assert_eq!(
        cluster
            .metric(0, "dew_provider_rotation_changes_total")
            .await,
        1.0
    );
    assert_eq!(
        cluster
            .metric(0, "dew_provider_nudges_total{outcome=\"delivered\"}")
            .await,
        4.0
    );
    assert_eq!(
        cluster
            .metric(0, "dew_provider_rotation_delivery_seconds_count")
            .await,
        1.0
    );
    assert!(
        cluster
            .metric(0, "dew_provider_rotation_oldest_unconfirmed_seconds")
            .await
            < 80.0
    );
}

#[tokio::test]
async fn a_volume_that_the_driver_skipped_is_nudged_again() {
    let cluster = Cluster::new().await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: v1");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * SECOND).await;
    cluster.put("a", "two", &[]).await;
    // Two edits within the second in which the driver skips a volume that it just changed.
    cluster.apply_one("app", "a", "objectVersion: v2");
    cluster.until(SECOND, || read(&pod, "a") == "two").await;
    cluster.apply_one("app", "a", "objectVersion: v1");
    cluster.until(2 * SECOND, || read(&pod, "a") == "one").await;
    let repeated = "dew_provider_nudges_total{outcome=\"repeated\"}";
    assert!(cluster.metric(0, repeated).await >= 1.0);
}

#[tokio::test]
async fn a_volume_that_the_driver_never_updates_is_reported_and_left_to_kubelet() {
    let cluster = Cluster::with(Setup {
        driver_rotates: false,
        ..Setup::default()
    })
    .await;
    let pods = mount_pods(&cluster, 1).await;
    cluster.put("a", "two", &[]).await;
    cluster.live(INTERVAL + 330 * SECOND).await;
    assert_eq!(read(&pods[0], "a"), "one");
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(
        events[0].contains("Check that the driver's rotation is enabled"),
        "{events:?}"
    );
    let gave_up = "dew_provider_nudges_total{outcome=\"gave_up\"}";
    assert_eq!(cluster.metric(0, gave_up).await, 1.0);
    let repeated = "dew_provider_nudges_total{outcome=\"repeated\"}";
    let before = cluster.metric(0, repeated).await;
    cluster.live(3 * INTERVAL).await;
    assert_eq!(
        cluster.metric(0, repeated).await,
        before,
        "an abandoned volume is not nudged"
    );
}

#[tokio::test]
async fn a_pod_that_ended_during_delivery_leaves_no_volume() {
    let cluster = Cluster::new().await;
    let pods = mount_pods(&cluster, 2).await;
    cluster.live(2 * INTERVAL).await;
    // kubelet unmounted the volume, and the watch of pods is late.
    cluster.api.0.hold_watches_of("pods");
    let driver = &cluster.nodes[0].driver;
    driver.node_unpublish_volume(&pods[0].target_path).unwrap();
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pods[0], "a") == "two")
        .await;
    cluster.api.0.remove("pods", "default", &pods[0].pod);
    // The pod was running when its object was deleted, so its containers get time to stop.
    cluster
        .until(75 * SECOND, || !pods[0].target_path.exists())
        .await;
    // All other pods got the new version.
    let is_delivered = || pods[1..].iter().all(|pod| read(pod, "a") == "two");
    cluster.until(6 * SECOND, is_delivered).await;
}

#[tokio::test]
async fn a_terminating_pod_is_not_nudged() {
    let cluster = Cluster::new().await;
    let pods = mount_pods(&cluster, 1).await;
    cluster.live(2 * INTERVAL).await;
    cluster.put_pod(
        0,
        &pods[0],
        json!({"deletionTimestamp": "2026-01-02T04:00:00Z"}),
    );
    let driver = &cluster.nodes[0].driver;
    driver.node_unpublish_volume(&pods[0].target_path).unwrap();
    cluster.put("a", "two", &[]).await;
    cluster.live(INTERVAL + 6 * SECOND).await;
    assert!(!pods[0].target_path.exists());
    assert_eq!(read(&pods[1], "a"), "two");
}

#[tokio::test]
async fn events_about_one_change_are_limited() {
    let cluster = Cluster::of(1).await;
    let pods = mount_pods(&cluster, 60).await;
    cluster.put("a", "two", &[]).await;
    cluster
        .until(2 * INTERVAL, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
    cluster.live(SECOND).await;
    let count = cluster.events_with_reason("SecretRotated").len();
    assert!((8..=30).contains(&count), "{count}");
}
