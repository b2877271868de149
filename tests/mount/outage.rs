//! New pods while the cloud is away: what the same identity fetched before stands in, and only then.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use super::super::support::logs::Logs;
use super::super::support::still::hurry;
use super::super::support::world::{INTERVAL, Setup, World, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";
const SECOND: Duration = Duration::from_secs(1);

async fn world() -> World {
    world_with(Setup::default()).await
}

/// With a pod that has `a`, longer ago than a new one may be given.
async fn world_with(setup: Setup) -> World {
    let world = World::with(setup).await;
    world.create("a", "the value").await;
    world.apply_for("app", OBJECTS, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    world.pass(11 * SECOND).await;
    world
}

async fn fail(world: &World, fault: serde_json::Value) {
    world.clear_faults().await;
    let every_read = json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault});
    world.fault(every_read).await;
}

#[tokio::test]
async fn a_new_pod_starts_with_what_was_fetched_before() {
    for fault in [
        json!({"status": 429}),
        json!({"status": 500}),
        json!({"status": 502}),
        json!({"reset": true}),
        json!({"garbage": "html"}),
        json!({"delay_ms": 60_000}),
        json!({"status": 429, "retry_after": 3600}),
    ] {
        let world = world().await;
        let logs = Logs::capture();
        fail(&world, fault.clone()).await;
        let pod = world.pod("app", "2");
        let begun = tokio::time::Instant::now();
        world.publish(&pod).await.unwrap();
        assert!(
            begun.elapsed() < 11 * SECOND,
            "{fault}: {:?}",
            begun.elapsed()
        );
        assert_eq!(read(&pod, "a"), "the value", "{fault}");
        // The next one need not wait: the outage is known.
        let calls = world.calls("ShowSecretVersion").await;
        world.publish(&world.pod("app", "3")).await.unwrap();
        assert_eq!(world.calls("ShowSecretVersion").await, calls, "{fault}");
        let log = logs.text();
        let line = log
            .lines()
            .find(|line| line.contains("served what was fetched before the outage"));
        let line = line.unwrap_or_else(|| panic!("{fault}: {log}"));
        assert!(
            line.contains("WARN")
                && line.contains("object=\"a\"")
                && line.contains("version=\"v1\""),
            "{line}"
        );
        let metrics = world.metrics().await;
        assert!(
            metrics.contains("dew_provider_store_requests_total{result=\"stale\"} 2"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn the_pod_is_told_by_an_event() {
    let world = world().await;
    fail(&world, json!({"status": 502})).await;
    world.publish(&world.pod("app", "2")).await.unwrap();
    hurry(async {
        while world.api.events().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let event = &world.api.events()[0];
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("SecretNotConfirmed"), &json!("Warning"))
    );
    assert_eq!(event["regarding"]["name"], "app-2");
    assert_eq!(event["regarding"]["uid"], "2");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("\"a\" v1") && note.contains("CSMS could not be asked"),
        "{note}"
    );
    assert!(!note.contains("the value"));
}

#[tokio::test]
async fn mounted_pods_keep_what_they_have_and_follow_when_it_is_over() {
    let world = world().await;
    let pod = world.pod("app", "1");
    fail(&world, json!({"status": 502})).await;
    world.put("a", "new", &[]).await;
    for _ in 0..5 {
        world.pass(INTERVAL).await;
        world.publish(&pod).await.unwrap();
        assert_eq!(read(&pod, "a"), "the value");
    }
    world.clear_faults().await;
    world.pass(11 * SECOND).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
}

#[tokio::test]
async fn a_no_is_never_bridged() {
    for (status, code) in [
        (403, "CSMS.0302"),
        (404, "CSMS.0106"),
        (403, "CSMS.0109"),
        (400, "CSMS.0103"),
        (400, "CSMS.0401"),
        (401, "APIG.0301"),
    ] {
        let world = world().await;
        fail(&world, json!({"status": status, "code": code})).await;
        let refused = world.publish(&world.pod("app", "2")).await.expect_err(code);
        assert!(refused.message().contains(code), "{refused}");
        // Nor when the cloud goes away after its no.
        fail(&world, json!({"status": 502})).await;
        for _ in 0..2 {
            let refused = world.publish(&world.pod("app", "2")).await;
            let refused = refused.expect_err("away");
            assert_eq!(refused.code(), Code::Internal, "{code}: {refused}");
        }
        // Until it says yes again.
        world.clear_faults().await;
        world.publish(&world.pod("app", "2")).await.unwrap();
        world.pass(11 * SECOND).await;
        fail(&world, json!({"status": 502})).await;
        world.publish(&world.pod("app", "3")).await.unwrap();
    }
}

#[tokio::test]
async fn neither_another_identity_nor_an_unlisted_pod_gets_it() {
    let world = world().await;
    fail(&world, json!({"status": 502})).await;
    let mut pod = world.pod("app", "2");
    let keys = [("accessKey", "other"), ("secretKey", "other")];
    pod.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(world.publish(&pod).await.is_err());
    world.apply_for("app", OBJECTS, &[]).await;
    world.pass(11 * SECOND).await;
    let refused = world
        .publish(&world.pod("app", "3"))
        .await
        .expect_err("unlisted");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn it_ends_with_the_limit() {
    let limit = Duration::from_secs(3600);
    let world = world_with(Setup {
        stale_limit: limit,
        ..Setup::default()
    })
    .await;
    fail(&world, json!({"status": 502})).await;
    world.pass(limit - 30 * SECOND).await;
    world.publish(&world.pod("app", "2")).await.unwrap();
    world.pass(60 * SECOND).await;
    let refused = world
        .publish(&world.pod("app", "3"))
        .await
        .expect_err("too old");
    assert_eq!(refused.code(), Code::Internal);
    drop(world);
    let never = world_with(Setup {
        stale_limit: Duration::ZERO,
        ..Setup::default()
    })
    .await;
    fail(&never, json!({"status": 502})).await;
    assert!(never.publish(&never.pod("app", "2")).await.is_err());
}
