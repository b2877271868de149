//! How old an answer may be, how many questions are asked, and what is forgotten.

use std::time::Duration;

use futures::future::join_all;

use super::super::support::still::hurry;
use super::super::support::world::{INTERVAL, World, read};

const SECOND: Duration = Duration::from_secs(1);
const LATEST: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

#[tokio::test]
async fn a_mounted_volume_gets_latest_at_most_one_interval_old() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.apply_for("app", LATEST, &["a"]).await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    world.put("a", "two", &[]).await;
    // kubelet asks again and again; the cloud is not asked before the interval is over.
    for _ in 0..3 {
        world.pass(INTERVAL / 4).await;
        world.publish(&pod).await.unwrap();
        assert_eq!(read(&pod, "a"), "one");
    }
    assert_eq!(world.calls("ShowSecretVersion").await, 1);
    world.pass(INTERVAL / 4 + SECOND).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "two");
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn a_new_volume_gets_latest_at_most_ten_seconds_old() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.apply_for("app", LATEST, &["a"]).await;
    let old = world.pod("app", "1");
    world.publish(&old).await.unwrap();
    world.put("a", "two", &[]).await;
    world.pass(9 * SECOND).await;
    let early = world.pod("app", "2");
    world.publish(&early).await.unwrap();
    assert_eq!(read(&early, "a"), "one");
    world.pass(2 * SECOND).await;
    let late = world.pod("app", "3");
    world.publish(&late).await.unwrap();
    assert_eq!(read(&late, "a"), "two");
    // What was learned for the new pod is good for the old one too.
    world.publish(&old).await.unwrap();
    assert_eq!(read(&old, "a"), "two");
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn a_stage_that_moves_is_followed_and_its_bytes_are_fetched_once() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.put("a", "two", &[]).await;
    world.move_stage("a", "blue", "v1").await;
    world
        .apply_for(
            "app",
            "- {objectName: a, objectType: csms, stage: blue}",
            &["a"],
        )
        .await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    world.move_stage("a", "blue", "v2").await;
    world.pass(INTERVAL + SECOND).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "two");
    assert_eq!(world.calls("ShowSecretStage").await, 2);
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
}

#[tokio::test]
async fn a_stage_is_not_served_from_a_version_of_long_ago() {
    let world = World::new().await;
    world.create("a", "old").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    world.apply_for("pinned", pinned, &["a"]).await;
    world.publish(&world.pod("pinned", "1")).await.unwrap();
    // Another secret of the same name: v1 and SYSCURRENT once more.
    world.delete("a").await;
    world.create("a", "new").await;
    world.pass(SECOND * 3601).await;
    let stage = "- {objectName: a, objectType: csms, stage: SYSCURRENT}";
    world.apply_for("stage", stage, &["a"]).await;
    let pod = world.pod("stage", "2");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
}

#[tokio::test]
async fn a_pinned_version_is_never_asked_for_again_in_a_mounted_volume() {
    let world = World::new().await;
    world.create("a", "one").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    world.apply_for("app", pinned, &["a"]).await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    for _ in 0..30 {
        world.pass(SECOND * 80).await;
        world.publish(&pod).await.unwrap();
    }
    assert_eq!(world.calls("ShowSecretVersion").await, 1);
    // A new volume wants it confirmed within the hour.
    world.publish(&world.pod("app", "2")).await.unwrap();
    assert_eq!(world.calls("ShowSecretVersion").await, 1);
    world.pass(SECOND * 1300).await;
    world.publish(&world.pod("app", "3")).await.unwrap();
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
    // A secret that was deleted stops new pods, and only those.
    world.delete("a").await;
    world.pass(SECOND * 3601).await;
    let refused = world
        .publish(&world.pod("app", "4"))
        .await
        .expect_err("deleted");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn an_object_added_to_a_class_is_new_in_a_mounted_volume() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.create("b", "b1").await;
    world.apply_for("app", LATEST, &["a", "b"]).await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    let both = format!("{LATEST}\n- {{objectName: b, objectType: csms, objectVersion: latest}}");
    world.apply_for("app", &both, &["a", "b"]).await;
    world.pass(11 * SECOND).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(
        (read(&pod, "a"), read(&pod, "b")),
        ("one".into(), "b1".into())
    );
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
    world.apply_for("app", LATEST, &["a", "b"]).await;
    world.pass(2 * SECOND).await;
    world.publish(&pod).await.unwrap();
    assert!(!pod.target_path.join("b").exists());
}

#[tokio::test]
async fn however_many_pods_ask_there_is_one_call() {
    let world = World::new().await;
    let mut objects = String::new();
    let names: Vec<String> = (0..10).map(|i| format!("s{i}")).collect();
    for name in &names {
        world.create(name, "x").await;
        objects += &format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n");
    }
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    world.apply_for("app", &objects, &listed).await;
    let pods: Vec<_> = (0..200).map(|i| world.pod("app", &i.to_string())).collect();
    let mounts = pods.iter().map(|pod| world.driver.publish_as_kubelet(pod));
    for result in hurry(join_all(mounts)).await {
        result.unwrap();
    }
    assert_eq!(world.calls("ShowSecretVersion").await, 10);
    assert_eq!(world.api.account_reads(), 1);
    let metrics = world.metrics().await;
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
async fn what_no_pod_used_for_a_day_is_forgotten() {
    let world = World::new().await;
    world.create("a", "a value of some length").await;
    let pinned = "- {objectName: a, objectType: csms, objectVersion: v1}";
    world.apply_for("app", pinned, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    let size = |metrics: String| -> u64 {
        let line = metrics
            .lines()
            .find(|l| l.starts_with("dew_provider_store_size_bytes"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(size(world.metrics().await) > 0);
    world.pass(SECOND * 23 * 3600).await;
    hurry(tokio::task::yield_now()).await;
    assert!(size(world.metrics().await) > 0);
    world.pass(SECOND * 2 * 3600).await;
    assert_eq!(size(world.metrics().await), 0);
}

#[tokio::test]
async fn identities_never_share_what_was_fetched() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.apply_for("app", LATEST, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    let keys = |secret: &str| {
        let pairs = [("accessKey", "DEMOACCESSKEY0000001"), ("secretKey", secret)];
        Some(
            pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    };
    // A pod that brings wrong keys gets nothing of what the node's identity has fetched.
    let mut pod = world.pod("app", "2");
    pod.secrets = keys("wrong");
    let refused = world.publish(&pod).await.expect_err("wrong keys");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(
        refused.message().contains("verify aksk signature fail"),
        "{refused}"
    );
    pod.secrets = keys(dew_provider::emulator::DEMO_SECRET_KEY);
    world.publish(&pod).await.unwrap();
    // Right keys are an identity of their own: asked for once more, though the same account. The
    // wrong ones came no further than IAM.
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
    pod.secrets = Some([("accessKey".to_owned(), "x".to_owned())].into());
    pod.target_path.push("other");
    let refused = world.publish(&pod).await.expect_err("half a pair");
    assert!(refused.message().contains("has no secretKey"), "{refused}");
}
