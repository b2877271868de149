//! Edits of SecretProviderClasses reach running pods.

use dew_provider::sim::csi_driver::PodVolume;

use crate::support::cluster::{Cluster, SECOND, read};

const BOTH: &str = "\
- {objectName: a, objectType: csms, objectVersion: latest}
- {objectName: b, objectType: csms, objectVersion: latest, objectAlias: two/b}";

async fn running_pod() -> (Cluster, PodVolume) {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.put("a", "two", &[]).await;
    cluster.create("b", "of b").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(15 * SECOND).await;
    (cluster, pod)
}

#[tokio::test]
async fn added_pinned_and_removed_objects_reach_a_pod_within_a_second() {
    let (cluster, pod) = running_pod().await;
    assert_eq!(read(&pod, "a"), "two");
    cluster.apply("app", &[("objects", BOTH)], &["a", "b"]);
    cluster
        .until(SECOND, || read(&pod, "two/b") == "of b")
        .await;
    assert_eq!(read(&pod, "a"), "two");
    cluster.live(2 * SECOND).await;
    cluster.apply_one("app", "a", "objectVersion: v1");
    cluster.until(SECOND, || read(&pod, "a") == "one").await;
    assert!(!pod.target_path.join("two").exists());
    let events = cluster.events_with_reason("SecretRotated");
    assert!(
        events.contains(&r#"app-1: "a" v2 → v1"#.to_owned()),
        "{events:?}"
    );
}

#[tokio::test]
async fn an_invalid_edit_is_reported_and_keeps_the_files_until_it_is_fixed() {
    let (cluster, pod) = running_pod().await;
    let invalid = "- {objectName: a, objectType: csms, objectVersion: newest}";
    cluster.apply("app", &[("objects", invalid)], &["a"]);
    cluster.live(2 * SECOND).await;
    assert_eq!(read(&pod, "a"), "two");
    let events = cluster.events_with_reason("SecretRotationFailed");
    let about = |name: &str| {
        events
            .iter()
            .find(|event| event.starts_with(name))
            .unwrap_or_else(|| panic!("{events:?}"))
    };
    for name in ["app: ", "app-1: "] {
        assert!(about(name).contains("objectVersion"), "{events:?}");
    }
    assert!(about("app-1: ").contains("keeps its files"), "{events:?}");
    // The driver is not called again, and no further Event is sent.
    let failed = "dew_provider_nudges_total{outcome=\"failed\"}";
    let before = cluster.metric(0, failed).await;
    cluster.live(60 * SECOND).await;
    assert_eq!(cluster.metric(0, failed).await, before);
    assert_eq!(
        cluster.events_with_reason("SecretRotationFailed").len(),
        events.len()
    );
    cluster.apply_one("app", "a", "objectVersion: v1");
    cluster.until(SECOND, || read(&pod, "a") == "one").await;
}

#[tokio::test]
async fn an_edit_to_a_missing_or_forbidden_secret_is_reported_and_can_be_fixed() {
    let (cluster, pod) = running_pod().await;
    cluster.apply_one("app", "c", "objectVersion: latest");
    cluster.live(2 * SECOND).await;
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("app-1: ") && event.contains("CSMS.0106")),
        "{events:?}"
    );
    assert_eq!(read(&pod, "a"), "two");
    let objects = "- {objectName: b, objectType: csms, objectVersion: latest}";
    cluster.apply("app", &[("objects", objects)], &["a"]);
    cluster.live(2 * SECOND).await;
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert!(
        events
            .iter()
            .any(|event| event.contains("does not list \"b\"")),
        "{events:?}"
    );
    assert_eq!(read(&pod, "a"), "two");
    cluster.apply("app", &[("objects", objects)], &["b"]);
    // kubelet's next call, or the next edit, updates the volume.
    cluster.publish(0, &pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
}

#[tokio::test]
async fn an_edit_that_the_driver_observes_late_reaches_the_pod() {
    let (cluster, pod) = running_pod().await;
    // The region must be that of the current class, and the first call still has the old one.
    let objects = "- {objectName: a, objectType: csms, objectVersion: v1}";
    cluster.apply(
        "app",
        &[("objects", objects), ("region", "cn-north-4")],
        &["a"],
    );
    cluster.until(2 * SECOND, || read(&pod, "a") == "one").await;
}

#[tokio::test]
async fn an_invalid_class_that_no_pod_mounts_is_reported() {
    let (cluster, _pod) = running_pod().await;
    cluster.apply("other", &[("objects", "- {objectName: a}")], &[]);
    cluster.apply(
        "interval",
        &[("objects", BOTH), ("rotationPollInterval", "30s")],
        &[],
    );
    cluster.live(2 * SECOND).await;
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("other: ") && event.contains("objectType")),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("interval: ") && event.contains("from 1m")),
        "{events:?}"
    );
}
