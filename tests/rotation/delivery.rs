//! A change reaches every pod, and leaves nothing behind for pods that are gone.

use serde_json::json;

use super::super::support::api_server::RECORDS;
use super::super::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};

const LATEST: &str = "objectVersion: latest";

async fn with_pods(cluster: &Cluster, each: usize) -> Vec<dew_provider::driver::PodVolume> {
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let mut pods = Vec::new();
    for node in 0..cluster.nodes.len() {
        for index in 0..each {
            pods.push(cluster.pod(node, "app", &format!("{node}-{index}")).await);
        }
    }
    pods
}

#[tokio::test]
async fn a_new_version_is_in_every_pod_within_the_interval_and_the_spread() {
    let cluster = Cluster::new().await;
    let pods = with_pods(&cluster, 4).await;
    // A fetch for each node, however many pods.
    assert_eq!(cluster.calls("ShowSecretVersion").await, 3);
    cluster.live(2 * INTERVAL).await;
    cluster.clear_calls().await;
    cluster.put("a", "two", &[]).await;
    let took = cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
    assert!(took > SECOND, "nobody looked in on it: {took:?}");
    cluster.live(2 * INTERVAL - took).await;
    assert_eq!(cluster.calls("ShowSecretVersion").await, 3);
    // One question an interval for the cluster.
    assert_eq!(cluster.calls("ListSecretVersions").await, 2);
    let told = cluster.told("SecretRotated");
    assert_eq!(told.len(), 12, "{told:?}");
    assert!(
        told.contains(&r#"app-0-0: "a" v1 → v2"#.to_owned()),
        "{told:?}"
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
async fn a_volume_that_the_driver_skips_is_called_for_again() {
    let cluster = Cluster::new().await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: v1");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * SECOND).await;
    cluster.put("a", "two", &[]).await;
    // Two edits within the second in which the driver leaves a changed volume alone.
    cluster.apply_one("app", "a", "objectVersion: v2");
    cluster.until(SECOND, || read(&pod, "a") == "two").await;
    cluster.apply_one("app", "a", "objectVersion: v1");
    cluster.until(2 * SECOND, || read(&pod, "a") == "one").await;
    let repeated = "dew_provider_nudges_total{outcome=\"repeated\"}";
    assert!(cluster.metric(0, repeated).await >= 1.0);
}

#[tokio::test]
async fn a_driver_that_never_takes_it_is_told_of_and_left_to_kubelet() {
    let cluster = Cluster::with(Setup {
        driver_rotates: false,
        ..Setup::default()
    })
    .await;
    let pods = with_pods(&cluster, 1).await;
    cluster.put("a", "two", &[]).await;
    cluster.live(INTERVAL + 330 * SECOND).await;
    assert_eq!(read(&pods[0], "a"), "one");
    let told = cluster.told("SecretRotationFailed");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("rotation on"), "{told:?}");
    let gave_up = "dew_provider_nudges_total{outcome=\"gave_up\"}";
    assert_eq!(cluster.metric(0, gave_up).await, 1.0);
    let calls = cluster
        .metric(0, "dew_provider_nudges_total{outcome=\"repeated\"}")
        .await;
    cluster.live(3 * INTERVAL).await;
    let repeated = "dew_provider_nudges_total{outcome=\"repeated\"}";
    assert_eq!(
        cluster.metric(0, repeated).await,
        calls,
        "it is left alone then"
    );
}

#[tokio::test]
async fn a_pod_that_ended_meanwhile_leaves_nothing() {
    let cluster = Cluster::new().await;
    let pods = with_pods(&cluster, 2).await;
    cluster.live(2 * INTERVAL).await;
    // kubelet has taken the volume down, and the news of it is late.
    cluster.api.0.hold_watches_of("pods");
    let driver = &cluster.nodes[0].driver;
    driver.node_unpublish_volume(&pods[0].target_path).unwrap();
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pods[0], "a") == "two")
        .await;
    cluster.api.0.remove("pods", "default", &pods[0].pod);
    // It ran when its object vanished, so its containers get some time.
    cluster
        .until(75 * SECOND, || !pods[0].target_path.exists())
        .await;
    // The other one, and those of other nodes, have theirs.
    let all = || pods[1..].iter().all(|pod| read(pod, "a") == "two");
    cluster.until(6 * SECOND, all).await;
}

#[tokio::test]
async fn a_pod_that_ends_is_not_called_for() {
    let cluster = Cluster::new().await;
    let pods = with_pods(&cluster, 1).await;
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
async fn events_of_a_change_are_bounded() {
    let cluster = Cluster::of(1).await;
    let pods = with_pods(&cluster, 60).await;
    cluster.put("a", "two", &[]).await;
    cluster
        .until(2 * INTERVAL, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
    cluster.live(SECOND).await;
    let told = cluster.told("SecretRotated").len();
    assert!((8..=30).contains(&told), "{told}");
}
