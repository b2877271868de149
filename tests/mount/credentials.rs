//! Whose keys ask, when keys, files and answers change.

use std::time::Duration;

use dew_provider::emulator::{
    self, Account, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY,
};
use serde_json::json;
use tonic::Code;

use super::super::support::world::{Setup, World, files, read};

const PINNED: &str = "- {objectName: a, objectType: csms, objectVersion: v1}";
const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// A world whose provider has its keys from a file, and two accounts with a project each.
async fn with_file(path: &std::path::Path) -> World {
    let other = Account {
        access_key: "OTHERACCESSKEY000001".into(),
        projects: [(DEMO_REGION.to_owned(), "b".repeat(32))].into(),
        ..Account::demo()
    };
    let emulator = emulator::Config {
        accounts: vec![Account::demo(), other],
        ..Default::default()
    };
    let env = vec![(FILE, path.to_str().unwrap().to_owned())];
    World::with(Setup {
        emulator,
        env,
        ..Setup::default()
    })
    .await
}

fn write(path: &std::path::Path, access_key: &str) {
    let text = format!("[basic]\nak = {access_key}\nsk = {DEMO_SECRET_KEY}\n");
    // As a mounted Secret changes: another file under the name.
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[tokio::test]
async fn with_another_accounts_keys_in_the_file_the_provider_is_somebody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    write(&path, DEMO_ACCESS_KEY);
    let world = with_file(&path).await;
    world.create("a", "of the first account").await;
    world.apply_for("app", PINNED, &["a"]).await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "of the first account");
    write(&path, "OTHERACCESSKEY000001");
    // Not what the first one fetched, although it is fresh; and in the other one's project.
    let refused = world
        .publish(&world.pod("app", "2"))
        .await
        .expect_err("not there");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    write(&path, DEMO_ACCESS_KEY);
    world.publish(&world.pod("app", "3")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_named_has_to_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let world = with_file(&path).await;
    world.create("a", "one").await;
    world.apply_for("app", PINNED, &["a"]).await;
    let refused = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("no file");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for text in ["credentials from file", "does not exist", FILE] {
        assert!(refused.message().contains(text), "{refused}");
    }
    write(&path, DEMO_ACCESS_KEY);
    world.publish(&world.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn a_project_of_the_environment_is_that_of_the_home_region_only() {
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
    let emulator = emulator::Config {
        accounts: vec![account],
        ..Default::default()
    };
    let world = World::with(Setup {
        env,
        emulator,
        ..setup
    })
    .await;
    world.create("a", "of the north").await;
    world.api.put_account("default", "app", Some("[\"a\"]"));
    world.apply("app", &[("objects", PINNED)]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    assert_eq!(world.calls("KeystoneListProjects").await, 0);
    world
        .apply("app", &[("objects", PINNED), ("region", "cn-south-1")])
        .await;
    let refused = world
        .publish(&world.pod("app", "2"))
        .await
        .expect_err("not in the south");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert_eq!(world.calls("KeystoneListProjects").await, 1);
}

#[tokio::test]
async fn a_404_of_something_in_between_is_no_answer_about_the_secret() {
    let world = World::new().await;
    world.create("a", "one").await;
    let optional = "- {objectName: a, objectType: csms, objectVersion: latest, optional: true}";
    world.apply_for("app", optional, &["a"]).await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    world.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 404, "garbage": "html"}})).await;
    world.pass(Duration::from_secs(200)).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(files(&pod.target_path).len(), 1);
    assert_eq!(read(&pod, "a"), "one");
    let other = optional
        .replace("latest", "stage")
        .replace("objectVersion: stage", "stage: none");
    world.apply_for("other", &other, &["a"]).await;
    world.fault(json!({"match": {"operation": "ShowSecretStage"}, "fault": {"status": 404, "garbage": "html"}})).await;
    let refused = world
        .publish(&world.pod("other", "2"))
        .await
        .expect_err("a page");
    assert_eq!(refused.code(), Code::Internal, "{refused}");
}

#[tokio::test]
async fn what_was_tried_is_told_even_where_time_runs_out() {
    let world = World::with(Setup {
        stale_limit: Duration::ZERO,
        ..Setup::default()
    })
    .await;
    world.create("a", "one").await;
    world.api.put_account("default", "app", Some("[\"a\"]"));
    world
        .apply(
            "app",
            &[("objects", PINNED), ("failoverRegion", "cn-south-1")],
        )
        .await;
    let slow = json!({"match": {"region": "cn-north-4", "operation": "ShowSecretVersion"}, "fault": {"delay_ms": 6000, "status": 504}});
    world.fault(slow).await;
    let refused = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("slow");
    for text in [
        "no whole answer within",
        "ShowSecretVersion at 127.0.0.1",
        "gave up after 4 tries",
    ] {
        assert!(refused.message().contains(text), "{text}: {refused}");
    }
}

#[tokio::test]
async fn a_wait_of_ages_is_no_reason_to_fail_inside() {
    let world = World::new().await;
    world.create("a", "one").await;
    world.apply_for("app", PINNED, &["a"]).await;
    let forever = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 429, "retry_after": u64::MAX}});
    world.fault(forever).await;
    let refused = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("429");
    assert!(refused.message().contains("HTTP 429"), "{refused}");
    assert!(
        refused.message().contains("longer than the time left"),
        "{refused}"
    );
}
