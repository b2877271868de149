//! Which keys and project a call uses, and how failures of the cloud other than rejections are
//! reported.

use std::time::Duration;

use dew_provider::sim::huawei::{
    self, Account, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY,
};
use serde_json::json;
use tonic::Code;

use crate::support::test_node::{Setup, TestNode, files, read};

const PINNED: &str = "- {objectName: a, objectType: csms, objectVersion: v1}";
const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// A node whose provider reads its keys from a file, and two accounts with one project each.
async fn with_file(path: &std::path::Path) -> TestNode {
    let other = Account {
        access_key: "OTHERACCESSKEY000001".into(),
        projects: [(DEMO_REGION.to_owned(), "b".repeat(32))].into(),
        ..Account::demo()
    };
    let emulator = huawei::Config {
        accounts: vec![Account::demo(), other],
        ..Default::default()
    };
    let env = vec![(FILE, path.to_str().unwrap().to_owned())];
    TestNode::with(Setup {
        emulator,
        env,
        ..Setup::default()
    })
    .await
}

fn write(path: &std::path::Path, access_key: &str) {
    let text = format!("[basic]\nak = {access_key}\nsk = {DEMO_SECRET_KEY}\n");
    // A mounted Secret changes like this: a new file replaces the old one.
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[tokio::test]
async fn keys_of_another_account_in_the_file_are_another_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    write(&path, DEMO_ACCESS_KEY);
    let node = with_file(&path).await;
    node.create("a", "of the first account").await;
    node.apply_for("app", PINNED, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "of the first account");
    write(&path, "OTHERACCESSKEY000001");
    // The version fetched by the first account is fresh, but the second account must not get it, and
    // its own project has no such secret.
    let error = node
        .publish(&node.pod("app", "2"))
        .await
        .expect_err("not in this project");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    write(&path, DEMO_ACCESS_KEY);
    node.publish(&node.pod("app", "3")).await.unwrap();
}

#[tokio::test]
async fn a_configured_credentials_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let node = with_file(&path).await;
    node.create("a", "one").await;
    node.apply_for("app", PINNED, &["a"]).await;
    let error = node
        .publish(&node.pod("app", "1"))
        .await
        .expect_err("no file");
    assert_eq!(error.code(), Code::FailedPrecondition);
    for text in ["credentials from file", "does not exist", FILE] {
        assert!(error.message().contains(text), "{error}");
    }
    write(&path, DEMO_ACCESS_KEY);
    node.publish(&node.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn the_project_in_the_environment_applies_to_the_home_region_only() {
    let south = "f".repeat(32);
    let account = Account {
        projects: [
            (DEMO_REGION.to_owned(), DEMO_PROJECT.to_owned()),
            ("cn-south-1".to_owned(), south),
        ]
        .into(),
        ..Account::demo()
    };
    let setup = Setup::default();
    let mut env = setup.env.clone();
    env.push(("HUAWEICLOUD_SDK_PROJECT_ID", DEMO_PROJECT.into()));
    let emulator = huawei::Config {
        accounts: vec![account],
        ..Default::default()
    };
    let node = TestNode::with(Setup {
        env,
        emulator,
        ..setup
    })
    .await;
    node.create("a", "of the north").await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    node.apply("app", &[("objects", PINNED)]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    assert_eq!(node.calls("KeystoneListProjects").await, 0);
    node.apply("app", &[("objects", PINNED), ("region", "cn-south-1")])
        .await;
    let error = node
        .publish(&node.pod("app", "2"))
        .await
        .expect_err("not in the south");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    assert_eq!(node.calls("KeystoneListProjects").await, 1);
}

#[tokio::test]
async fn a_404_page_of_a_proxy_does_not_mean_that_the_secret_is_missing() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    let optional = "- {objectName: a, objectType: csms, objectVersion: latest, optional: true}";
    node.apply_for("app", optional, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 404, "garbage": "html"}})).await;
    node.pass(Duration::from_secs(200)).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(files(&pod.target_path).len(), 1);
    assert_eq!(read(&pod, "a"), "one");
    let other = optional
        .replace("latest", "stage")
        .replace("objectVersion: stage", "stage: none");
    node.apply_for("other", &other, &["a"]).await;
    node.fault(json!({"match": {"operation": "ShowSecretStage"}, "fault": {"status": 404, "garbage": "html"}})).await;
    let error = node
        .publish(&node.pod("other", "2"))
        .await
        .expect_err("an HTML page");
    assert_eq!(error.code(), Code::Internal, "{error}");
}

#[tokio::test]
async fn a_timeout_reports_the_call_and_its_attempts() {
    let node = TestNode::with(Setup {
        stale_limit: Duration::ZERO,
        ..Setup::default()
    })
    .await;
    node.create("a", "one").await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    node.apply(
        "app",
        &[("objects", PINNED), ("failoverRegion", "cn-south-1")],
    )
    .await;
    let slow = json!({"match": {"region": "cn-north-4", "operation": "ShowSecretVersion"}, "fault": {"delay_ms": 6000, "status": 504}});
    node.fault(slow).await;
    let error = node.publish(&node.pod("app", "1")).await.expect_err("slow");
    for text in [
        "timed out after",
        "waiting for the full response",
        "ShowSecretVersion at 127.0.0.1",
        "gave up after 4 attempts",
    ] {
        assert!(error.message().contains(text), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_huge_retry_after_is_reported_without_a_panic() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for("app", PINNED, &["a"]).await;
    let forever = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 429, "retry_after": u64::MAX}});
    node.fault(forever).await;
    let error = node.publish(&node.pod("app", "1")).await.expect_err("429");
    assert!(error.message().contains("HTTP 429"), "{error}");
    assert!(
        error.message().contains("longer than the time left"),
        "{error}"
    );
}
