//! New pods during an outage of the cloud: they get the last version that the same identity fetched,
//! up to the stale limit and unless the cloud rejected it.

use std::time::Duration;

use dew_provider::sim::huawei::{self, Account};
use serde_json::json;
use tonic::Code;

use super::{FOLLOWS_A, node_with_mounted_pod};
use crate::support::logs::Logs;
use crate::support::paused_clock::drive;
use crate::support::test_node::{INTERVAL, Setup, TestNode, read};

const SECOND: Duration = Duration::from_secs(1);

async fn node() -> TestNode {
    node_with_mounted_pod(Setup::default()).await
}

/// Lets all reads of versions fail with `fault`.
async fn fail(node: &TestNode, fault: serde_json::Value) {
    node.clear_faults().await;
    let every_read = json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault});
    node.fault(every_read).await;
}

#[tokio::test]
async fn a_new_pod_gets_the_cached_version_during_an_outage() {
    for fault in [
        json!({"status": 429}),
        json!({"status": 500}),
        json!({"status": 502}),
        json!({"reset": true}),
        json!({"garbage": "html"}),
        json!({"delay_ms": 60_000}),
        json!({"status": 429, "retry_after": 3600}),
    ] {
        let node = node().await;
        let logs = Logs::capture();
        fail(&node, fault.clone()).await;
        let pod = node.pod("app", "2");
        let start = tokio::time::Instant::now();
        node.publish(&pod).await.unwrap();
        assert!(
            start.elapsed() < 11 * SECOND,
            "{fault}: {:?}",
            start.elapsed()
        );
        assert_eq!(read(&pod, "a"), "the value", "{fault}");
        // The next pod does not wait, because the outage is known.
        let calls = node.calls("ShowSecretVersion").await;
        node.publish(&node.pod("app", "3")).await.unwrap();
        assert_eq!(node.calls("ShowSecretVersion").await, calls, "{fault}");
        let log = logs.text();
        let line = log
            .lines()
            .find(|line| line.contains("served the cached version during an outage"));
        let line = line.unwrap_or_else(|| panic!("{fault}: {log}"));
        assert!(
            line.contains("WARN")
                && line.contains("object=\"a\"")
                && line.contains("version=\"v1\""),
            "{line}"
        );
        let metrics = node.metrics().await;
        assert!(
            metrics.contains("dew_provider_store_requests_total{result=\"stale\"} 2"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn an_event_reports_that_the_version_is_not_confirmed() {
    let node = node().await;
    fail(&node, json!({"status": 502})).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
    drive(async {
        while node.api.events().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let event = &node.api.events()[0];
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("SecretNotConfirmed"), &json!("Warning"))
    );
    assert_eq!(event["regarding"]["name"], "app-2");
    assert_eq!(event["regarding"]["uid"], "2");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("\"a\" v1") && note.contains("CSMS is unreachable"),
        "{note}"
    );
    assert!(!note.contains("the value"));
}

#[tokio::test]
async fn mounted_pods_keep_their_files_and_are_updated_after_the_outage() {
    let node = node().await;
    let pod = node.pod("app", "1");
    fail(&node, json!({"status": 502})).await;
    node.put("a", "new", &[]).await;
    for _ in 0..5 {
        node.pass(INTERVAL).await;
        node.publish(&pod).await.unwrap();
        assert_eq!(read(&pod, "a"), "the value");
    }
    node.clear_faults().await;
    node.pass(11 * SECOND).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
}

#[tokio::test]
async fn a_rejected_secret_is_never_served_from_the_cache() {
    for (status, code) in [
        (403, "CSMS.0302"),
        (403, "CSMS.0109"),
        (400, "CSMS.0103"),
        (400, "CSMS.0401"),
    ] {
        let node = node().await;
        fail(&node, json!({"status": status, "code": code})).await;
        let error = node.publish(&node.pod("app", "2")).await.expect_err(code);
        assert!(error.message().contains(code), "{error}");
        // An outage after the rejection changes nothing, also once the rejection itself is not remembered.
        node.pass(6 * SECOND).await;
        fail(&node, json!({"status": 502})).await;
        for _ in 0..2 {
            let result = node.publish(&node.pod("app", "2")).await;
            let error = result.expect_err("outage");
            assert_eq!(error.code(), Code::Internal, "{code}: {error}");
        }
        // A successful fetch ends the rejection.
        node.clear_faults().await;
        node.publish(&node.pod("app", "2")).await.unwrap();
        node.pass(11 * SECOND).await;
        fail(&node, json!({"status": 502})).await;
        node.publish(&node.pod("app", "3")).await.unwrap();
    }
}

/// Only the service itself says that a value must no longer be served.
#[tokio::test]
async fn other_failures_neither_end_the_cached_version_nor_fail_new_pods() {
    for fault in [
        json!({"status": 400}),
        json!({"status": 400, "code": "CSMS.0002"}),
        json!({"status": 400, "code": "APIG.0106"}),
        json!({"status": 401}),
        json!({"status": 401, "code": "APIG.0301"}),
        json!({"status": 401, "code": "APIGW.0307"}),
        json!({"status": 403}),
        json!({"status": 403, "code": "APIG.0302"}),
        json!({"status": 404}),
        json!({"status": 404, "code": "APIG.0101"}),
        json!({"status": 404, "code": "nginx"}),
        json!({"status": 409}),
        json!({"status": 413}),
        json!({"status": 418, "code": "x"}),
        json!({"clock_skew_seconds": 1200}),
        json!({"expire_tokens": true}),
    ] {
        let node = node().await;
        fail(&node, fault.clone()).await;
        let first = node.pod("app", "2");
        node.publish(&first)
            .await
            .unwrap_or_else(|e| panic!("{fault}: {e}"));
        assert_eq!(read(&first, "a"), "the value", "{fault}");
        fail(&node, json!({"status": 502})).await;
        let second = node.pod("app", "3");
        node.publish(&second)
            .await
            .unwrap_or_else(|e| panic!("{fault}: {e}"));
        assert_eq!(read(&second, "a"), "the value", "{fault}");
    }
}

#[tokio::test]
async fn other_identities_and_unlisted_pods_get_no_cached_version() {
    let node = node().await;
    fail(&node, json!({"status": 502})).await;
    let mut pod = node.pod("app", "2");
    let keys = [("accessKey", "other"), ("secretKey", "other")];
    pod.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(node.publish(&pod).await.is_err());
    node.apply_for("app", FOLLOWS_A, &[]).await;
    node.pass(11 * SECOND).await;
    let error = node
        .publish(&node.pod("app", "3"))
        .await
        .expect_err("unlisted");
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn cached_versions_are_served_up_to_the_stale_limit() {
    let limit = Duration::from_secs(3600);
    let node = node_with_mounted_pod(Setup {
        stale_limit: limit,
        ..Setup::default()
    })
    .await;
    fail(&node, json!({"status": 502})).await;
    node.pass(limit - 30 * SECOND).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
    node.pass(60 * SECOND).await;
    let error = node
        .publish(&node.pod("app", "3"))
        .await
        .expect_err("too old");
    assert_eq!(error.code(), Code::Internal);
    drop(node);
    let never = node_with_mounted_pod(Setup {
        stale_limit: Duration::ZERO,
        ..Setup::default()
    })
    .await;
    fail(&never, json!({"status": 502})).await;
    assert!(never.publish(&never.pod("app", "2")).await.is_err());
}

#[tokio::test]
async fn in_a_known_outage_the_failover_region_is_asked_and_its_value_is_kept() {
    let (south, project) = ("cn-south-1", "f".repeat(32));
    let mut account = Account::demo();
    account.projects.insert(south.into(), project.clone());
    let emulator = huawei::Config {
        accounts: vec![account],
        ..huawei::Config::default()
    };
    let mut node = TestNode::with(Setup {
        emulator,
        ..Setup::default()
    })
    .await;
    node.create("a", "of the north").await;
    node.owner.caller.region = south.parse().unwrap();
    node.owner.caller.project = Some(project);
    node.create("a", "of the south").await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    node.apply("app", &[("objects", FOLLOWS_A), ("failoverRegion", south)])
        .await;
    let gets = async |name: &str, expected: &str| {
        let pod = node.pod("app", name);
        node.publish(&pod).await.unwrap();
        assert_eq!(read(&pod, "a"), expected, "pod {name}");
    };
    gets("1", "of the north").await;
    node.pass(11 * SECOND).await;
    let north_fails = json!({"match": {"region": "cn-north-4"}, "fault": {"status": 502}});
    node.fault(north_fails).await;
    gets("2", "of the south").await;
    node.owner.put("a", "newer in the south", &[]).await;
    node.pass(6 * SECOND).await;
    // The outage of the north is known now, and the value of the south 6 s old.
    gets("3", "of the south").await;
    node.pass(6 * SECOND).await;
    gets("4", "newer in the south").await;
    // Both fail: the more recent value is served.
    node.fault(json!({"fault": {"status": 502}})).await;
    node.pass(60 * SECOND).await;
    gets("5", "newer in the south").await;
}
