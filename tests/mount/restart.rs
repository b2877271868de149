//! A provider that restarts during an outage of the cloud: from the snapshot, new pods get the last
//! versions that the same identity fetched, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use dew_provider::sim::huawei::{self, Account, DEMO_ACCESS_KEY, DEMO_SECRET_KEY};
use dew_provider::util::clock::Clock;
use dew_provider::util::env::Env;
use jiff::SignedDuration;
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use super::{FOLLOWS_A, node_with_mounted_pod};
use crate::support::logs::Logs;
use crate::support::paused_clock::drive;
use crate::support::test_node::{Launch, Setup, TestNode, files, read};

const SECOND: Duration = Duration::from_secs(1);
/// After this time a change is in the snapshot, which is written at most every 5 s.
const SNAPSHOT_WRITTEN: Duration = Duration::from_secs(6);
const AK: &str = "HUAWEICLOUD_SDK_AK";
const SK: &str = "HUAWEICLOUD_SDK_SK";

/// A directory on a tmpfs.
fn tmpfs() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn with_snapshot(tmpfs: &TempDir) -> Setup {
    Setup {
        store_dir: Some(tmpfs.path().to_owned()),
        ..Setup::default()
    }
}

/// Lets all reads fail with `fault`.
async fn fail(node: &TestNode, fault: serde_json::Value) {
    node.clear_faults().await;
    for operation in [
        "ShowSecretVersion",
        "ShowSecretStage",
        "KeystoneListProjects",
    ] {
        let every_read = json!({"match": {"operation": operation}, "fault": fault});
        node.fault(every_read).await;
    }
}

async fn restart_in_outage(node: TestNode, meanwhile: impl FnOnce(&mut Launch)) -> TestNode {
    fail(&node, json!({"status": 502})).await;
    node.restart_provider(meanwhile).await
}

async fn gets_value(node: &TestNode, uid: &str) {
    let pod = node.pod("app", uid);
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value");
}

async fn gets_nothing(node: &TestNode, uid: &str) {
    let result = node.publish(&node.pod("app", uid)).await;
    let error = result.expect_err("no cached version may be served");
    assert_eq!(error.code(), Code::Internal, "{error}");
    assert!(error.message().contains("HTTP 502"), "{error}");
}

/// Lets time pass while tasks run.
async fn run_for(time: Duration) {
    drive(tokio::time::sleep(time)).await;
}

fn snapshot_path(launch: &Launch) -> PathBuf {
    launch.config.store_dir.as_ref().unwrap().join("store")
}

fn env(access: &str, secret: &str) -> Env {
    Env::from_pairs([(AK, access), (SK, secret)])
}

#[tokio::test]
async fn a_new_pod_gets_what_the_previous_provider_fetched() {
    let tmpfs = tmpfs();
    let node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
    node.create("b", &b"\0\xff"[..]).await;
    let objects = "
      - {objectName: a, objectType: csms, stage: SYSCURRENT, objectAlias: stage}
      - {objectName: b, objectType: csms, objectVersion: v1}";
    node.apply_for("other", objects, &["a", "b"]).await;
    node.publish(&node.pod("other", "2")).await.unwrap();
    let node = restart_in_outage(node, |_| {}).await;
    let logs = Logs::capture();
    gets_value(&node, "3").await;
    let line = "served the cached version during an outage";
    assert!(logs.text().contains(line), "{}", logs.text());
    // No pod requested the other secrets from the second provider, but the third still has them.
    let node = restart_in_outage(node, |_| {}).await;
    for uid in ["2", "4"] {
        let pod = node.pod("other", uid);
        node.publish(&pod).await.unwrap();
        let expected = [
            ("b".to_owned(), 0o644, b"\0\xff".to_vec()),
            ("stage".to_owned(), 0o644, b"the value".to_vec()),
        ];
        assert_eq!(files(&pod.target_path), expected);
    }
}

#[tokio::test]
async fn the_snapshot_is_used_only_during_an_outage() {
    let tmpfs = tmpfs();
    let node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
    let node = node.restart_provider(|_| {}).await;
    node.put("a", "new", &[]).await;
    let pod = node.pod("app", "2");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
    let node = node.restart_provider(|_| {}).await;
    node.pass(11 * SECOND).await;
    fail(&node, json!({"status": 403, "code": "CSMS.0302"})).await;
    let result = node.publish(&node.pod("app", "3")).await;
    assert_eq!(result.expect_err("rejected").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_directory_nothing_survives_a_restart() {
    let node = restart_in_outage(node_with_mounted_pod(Setup::default()).await, |_| {}).await;
    gets_nothing(&node, "2").await;
}

#[tokio::test]
async fn the_snapshot_survives_a_killed_provider() {
    let tmpfs = tmpfs();
    let node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
    run_for(SNAPSHOT_WRITTEN).await;
    let left = std::fs::read(snapshot_path(&node.launch)).unwrap();
    let node = restart_in_outage(node, |launch| {
        let file = snapshot_path(launch);
        // Undoes the write at shutdown, and leaves another one unfinished.
        std::fs::write(&file, left).unwrap();
        std::fs::write(file.with_extension("next"), "half of").unwrap();
    })
    .await;
    let names = std::fs::read_dir(tmpfs.path()).unwrap();
    assert_eq!(names.count(), 1, "the partial file is removed");
    gets_value(&node, "2").await;
}

#[tokio::test]
async fn other_keys_get_nothing_from_the_snapshot() {
    let tmpfs = tmpfs();
    let node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
    let node = restart_in_outage(node, |launch| {
        launch.dependencies.env = env("OTHERACCESSKEY000001", DEMO_SECRET_KEY);
    })
    .await;
    gets_nothing(&node, "2").await;
    let node = restart_in_outage(node, |launch| {
        launch.dependencies.env = env(DEMO_ACCESS_KEY, "another");
    })
    .await;
    gets_nothing(&node, "3").await;
    // A pod's own keys get nothing either.
    let mut pod = node.pod("app", "4");
    let keys = [("accessKey", "other"), ("secretKey", "other")];
    pod.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(node.publish(&pod).await.is_err());
    // The original keys still get it.
    let node = restart_in_outage(node, |launch| {
        launch.dependencies.env = env(DEMO_ACCESS_KEY, DEMO_SECRET_KEY);
    })
    .await;
    gets_value(&node, "5").await;
}

#[tokio::test]
async fn equal_keys_in_a_rewritten_file_are_the_same_identity() {
    let (tmpfs, folder) = (tmpfs(), tempfile::tempdir().unwrap());
    let path = folder.path().join("credentials");
    let write = |access: &str| {
        let text = format!("[basic]\nak = {access}\nsk = {DEMO_SECRET_KEY}\n");
        std::fs::write(&path, text).unwrap();
    };
    write(DEMO_ACCESS_KEY);
    let keys = (
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE",
        path.to_str().unwrap().to_owned(),
    );
    let setup = Setup {
        env: vec![keys],
        ..with_snapshot(&tmpfs)
    };
    let node = node_with_mounted_pod(setup).await;
    let node = restart_in_outage(node, |_| write("OTHERACCESSKEY000001")).await;
    gets_nothing(&node, "2").await;
    let node = restart_in_outage(node, |_| write(DEMO_ACCESS_KEY)).await;
    gets_value(&node, "3").await;
    write("OTHERACCESSKEY000001");
    gets_nothing(&node, "4").await;
}

#[tokio::test]
async fn the_nodes_agency_is_the_same_identity_although_its_keys_change() {
    let tmpfs = tmpfs();
    let setup = Setup {
        env: Vec::new(),
        ..with_snapshot(&tmpfs)
    };
    let node = restart_in_outage(node_with_mounted_pod(setup).await, |_| {}).await;
    gets_value(&node, "2").await;
    // Keys from the environment are another identity, even if they belong to the same account.
    let node = restart_in_outage(node, |launch| {
        launch.dependencies.env = env(DEMO_ACCESS_KEY, DEMO_SECRET_KEY);
    })
    .await;
    gets_nothing(&node, "3").await;
}

#[tokio::test]
async fn another_endpoint_is_another_identity() {
    let tmpfs = tmpfs();
    let node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
    let url = node.emulator.url().replace("127.0.0.1", "localhost");
    let elsewhere = |launch: &mut Launch| launch.config.cloud.csms_endpoint = Some(url);
    let node = restart_in_outage(node, elsewhere).await;
    gets_nothing(&node, "2").await;
}

#[tokio::test]
async fn the_stale_limit_includes_the_time_before_the_restart() {
    let limit = Duration::from_secs(3600);
    // How far the clock moves while no provider runs, and whether the version is still served.
    for (seconds, served) in [(3500, true), (3600, false), (-30, true), (-120, false)] {
        let tmpfs = tmpfs();
        let setup = Setup {
            stale_limit: limit,
            ..with_snapshot(&tmpfs)
        };
        let node = node_with_mounted_pod(setup).await;
        let logs = Logs::capture();
        let node = restart_in_outage(node, |launch| {
            let date = launch.dependencies.clock.now() + SignedDuration::from_secs(seconds);
            launch.dependencies.clock = Clock::from_tokio(date);
        })
        .await;
        // A broken connection has no `Date` header to compare the clock with.
        fail(&node, json!({"reset": true})).await;
        if !served {
            let result = node.publish(&node.pod("app", "2")).await;
            assert!(result.is_err(), "{seconds}");
            assert!(logs.text().contains("versions=0 outdated=1"), "{seconds}");
            continue;
        }
        gets_value(&node, "2").await;
        node.pass(limit).await;
        assert!(node.publish(&node.pod("app", "3")).await.is_err());
    }
}

#[tokio::test]
async fn a_rejected_version_is_removed_from_the_snapshot() {
    let rejection = json!({"status": 403, "code": "CSMS.0302"});
    // The cloud rejects either the provider that fetched the version, or the next one.
    for restart in [false, true] {
        let tmpfs = tmpfs();
        let mut node = node_with_mounted_pod(with_snapshot(&tmpfs)).await;
        run_for(SNAPSHOT_WRITTEN).await;
        let before = std::fs::metadata(snapshot_path(&node.launch))
            .unwrap()
            .len();
        if restart {
            node = node.restart_provider(|_| {}).await;
        }
        fail(&node, rejection.clone()).await;
        node.publish(&node.pod("app", "2"))
            .await
            .expect_err("rejected");
        // The file is written soon, not only at shutdown.
        run_for(SNAPSHOT_WRITTEN).await;
        let left = std::fs::read(snapshot_path(&node.launch)).unwrap();
        assert!(u64::try_from(left.len()).unwrap() < before);
        let node = restart_in_outage(node, |launch| {
            std::fs::write(snapshot_path(launch), left).unwrap();
        })
        .await;
        gets_nothing(&node, "3").await;
        // A successful fetch ends the rejection.
        node.clear_faults().await;
        gets_value(&node, "4").await;
        let node = restart_in_outage(node, |_| {}).await;
        gets_value(&node, "5").await;
    }
}

#[tokio::test]
async fn a_rejection_by_the_failover_region_applies_to_classes_of_that_region() {
    let tmpfs = tmpfs();
    let mut account = Account::demo();
    let (south, project) = ("cn-south-1", "f".repeat(32));
    account.projects.insert(south.into(), project.clone());
    let setup = with_snapshot(&tmpfs);
    let emulator = huawei::Config {
        accounts: vec![account],
        ..setup.emulator
    };
    let mut node = node_with_mounted_pod(Setup { emulator, ..setup }).await;
    node.owner.caller.region = south.parse().unwrap();
    node.owner.caller.project = Some(project);
    node.create("a", "the value").await;
    let objects = ("objects", FOLLOWS_A);
    node.apply("app", &[objects, ("region", south)]).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
    let node = node.restart_provider(|_| {}).await;
    // The region rejects a read for a pod that uses it as the failover region.
    node.apply("app", &[objects, ("failoverRegion", south)])
        .await;
    for (region, fault) in [
        ("cn-north-4", json!({"status": 502})),
        (south, json!({"status": 403, "code": "CSMS.0302"})),
    ] {
        let read = json!({"region": region, "operation": "ShowSecretVersion"});
        node.fault(json!({"match": read, "fault": fault})).await;
    }
    node.pass(11 * SECOND).await;
    gets_value(&node, "3").await;
    node.apply("app", &[objects, ("region", south)]).await;
    node.pass(6 * SECOND).await;
    fail(&node, json!({"status": 502})).await;
    gets_nothing(&node, "4").await;
}

#[tokio::test]
async fn a_rejection_applies_to_equal_keys_in_a_rewritten_file() {
    let (tmpfs, folder) = (tmpfs(), tempfile::tempdir().unwrap());
    let path = folder.path().join("credentials");
    let write = |end: &str| {
        let text = format!("[basic]\nak = {DEMO_ACCESS_KEY}\nsk = {DEMO_SECRET_KEY}\n{end}");
        std::fs::write(&path, text).unwrap();
    };
    write("");
    let keys = (
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE",
        path.to_str().unwrap().to_owned(),
    );
    let setup = Setup {
        env: vec![keys],
        ..with_snapshot(&tmpfs)
    };
    let node = node_with_mounted_pod(setup).await;
    write("# longer\n");
    fail(&node, json!({"status": 403, "code": "CSMS.0302"})).await;
    node.publish(&node.pod("app", "2"))
        .await
        .expect_err("rejected");
    let node = restart_in_outage(node, |_| {}).await;
    gets_nothing(&node, "3").await;
}
