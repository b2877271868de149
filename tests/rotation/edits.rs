//! Edits of SecretProviderClasses reach pods that run.

use super::super::support::cluster::{Cluster, SECOND, read};

const BOTH: &str = "\
- {objectName: a, objectType: csms, objectVersion: latest}
- {objectName: b, objectType: csms, objectVersion: latest, objectAlias: two/b}";

async fn one() -> (Cluster, dew_provider::driver::PodVolume) {
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
async fn objects_are_added_pinned_and_removed_at_once() {
    let (cluster, pod) = one().await;
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
    let told = cluster.told("SecretRotated");
    assert!(
        told.contains(&r#"app-1: "a" v2 → v1"#.to_owned()),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_wrong_edit_leaves_the_files_is_told_and_heals() {
    let (cluster, pod) = one().await;
    let wrong = "- {objectName: a, objectType: csms, objectVersion: newest}";
    cluster.apply("app", &[("objects", wrong)], &["a"]);
    cluster.live(2 * SECOND).await;
    assert_eq!(read(&pod, "a"), "two");
    let told = cluster.told("SecretRotationFailed");
    let of = |name: &str| {
        told.iter()
            .find(|told| told.starts_with(name))
            .unwrap_or_else(|| panic!("{told:?}"))
    };
    for name in ["app: ", "app-1: "] {
        assert!(of(name).contains("objectVersion"), "{told:?}");
    }
    assert!(of("app-1: ").contains("keeps its files"), "{told:?}");
    // Neither the driver nor the pod is troubled again and again.
    let failed = "dew_provider_nudges_total{outcome=\"failed\"}";
    let before = cluster.metric(0, failed).await;
    cluster.live(60 * SECOND).await;
    assert_eq!(cluster.metric(0, failed).await, before);
    assert_eq!(cluster.told("SecretRotationFailed").len(), told.len());
    cluster.apply_one("app", "a", "objectVersion: v1");
    cluster.until(SECOND, || read(&pod, "a") == "one").await;
}

#[tokio::test]
async fn an_edit_to_what_is_missing_or_not_allowed_is_told_and_heals() {
    let (cluster, pod) = one().await;
    cluster.apply_one("app", "c", "objectVersion: latest");
    cluster.live(2 * SECOND).await;
    let told = cluster.told("SecretRotationFailed");
    assert!(
        told.iter()
            .any(|t| t.starts_with("app-1: ") && t.contains("CSMS.0106")),
        "{told:?}"
    );
    assert_eq!(read(&pod, "a"), "two");
    let objects = "- {objectName: b, objectType: csms, objectVersion: latest}";
    cluster.apply("app", &[("objects", objects)], &["a"]);
    cluster.live(2 * SECOND).await;
    let told = cluster.told("SecretRotationFailed");
    assert!(
        told.iter().any(|t| t.contains("does not list \"b\"")),
        "{told:?}"
    );
    assert_eq!(read(&pod, "a"), "two");
    cluster.apply("app", &[("objects", objects)], &["b"]);
    // kubelet's next look, or the next edit.
    cluster.publish(0, &pod).await.unwrap();
    assert_eq!(read(&pod, "b"), "of b");
}

#[tokio::test]
async fn an_edit_that_the_driver_sees_late_is_followed() {
    let (cluster, pod) = one().await;
    // The region counts only as the class has it now: the first call comes with the old one.
    let objects = "- {objectName: a, objectType: csms, objectVersion: v1}";
    cluster.apply(
        "app",
        &[("objects", objects), ("region", "cn-north-4")],
        &["a"],
    );
    cluster.until(2 * SECOND, || read(&pod, "a") == "one").await;
}

#[tokio::test]
async fn a_wrong_class_that_nobody_mounts_is_told_too() {
    let (cluster, _pod) = one().await;
    cluster.apply("other", &[("objects", "- {objectName: a}")], &[]);
    cluster.apply(
        "interval",
        &[("objects", BOTH), ("rotationPollInterval", "30s")],
        &[],
    );
    cluster.live(2 * SECOND).await;
    let told = cluster.told("SecretRotationFailed");
    assert!(
        told.iter()
            .any(|t| t.starts_with("other: ") && t.contains("objectType")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|t| t.starts_with("interval: ") && t.contains("from 1m")),
        "{told:?}"
    );
}
