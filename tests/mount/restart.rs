//! A provider that is started anew while the cloud is away: what the one before it fetched for the
//! same identity stands in, and only then.

use std::path::PathBuf;
use std::time::Duration;

use dew_provider::clock::Clock;
use dew_provider::cloud::Env;
use dew_provider::emulator::{self, Account, DEMO_ACCESS_KEY, DEMO_SECRET_KEY};
use jiff::SignedDuration;
use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use super::super::support::logs::Logs;
use super::super::support::still::hurry;
use super::super::support::world::{Launch, Setup, World, files, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";
const SECOND: Duration = Duration::from_secs(1);
/// As the file is written 5 s after the last time at the latest.
const SAVED: Duration = Duration::from_secs(6);
const AK: &str = "HUAWEICLOUD_SDK_AK";
const SK: &str = "HUAWEICLOUD_SDK_SK";

/// A folder on a tmpfs.
fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn saving(memory: &TempDir) -> Setup {
    Setup {
        store_dir: Some(memory.path().to_owned()),
        ..Setup::default()
    }
}

/// With a pod that has `a`, longer ago than a new one may be given.
async fn world(setup: Setup) -> World {
    let world = World::with(setup).await;
    world.create("a", "the value").await;
    world.apply_for("app", OBJECTS, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    world.pass(11 * SECOND).await;
    world
}

/// Whatever is read, the cloud answers with this.
async fn fail(world: &World, fault: serde_json::Value) {
    world.clear_faults().await;
    for operation in [
        "ShowSecretVersion",
        "ShowSecretStage",
        "KeystoneListProjects",
    ] {
        let every_read = json!({"match": {"operation": operation}, "fault": fault});
        world.fault(every_read).await;
    }
}

async fn restarted_in_an_outage(world: World, meanwhile: impl FnOnce(&mut Launch)) -> World {
    fail(&world, json!({"status": 502})).await;
    world.restart_provider(meanwhile).await
}

async fn has_it(world: &World, uid: &str) {
    let pod = world.pod("app", uid);
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value");
}

async fn has_nothing(world: &World, uid: &str) {
    let refused = world.publish(&world.pod("app", uid)).await;
    let refused = refused.expect_err("nothing should stand in");
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert!(refused.message().contains("HTTP 502"), "{refused}");
}

/// Lets time pass in which tasks work.
async fn work(time: Duration) {
    hurry(tokio::time::sleep(time)).await;
}

fn file(launch: &Launch) -> PathBuf {
    launch.config.store_dir.as_ref().unwrap().join("store")
}

fn env(access: &str, secret: &str) -> Env {
    Env::from_pairs([(AK, access), (SK, secret)])
}

#[tokio::test]
async fn a_new_pod_starts_with_what_the_provider_before_fetched() {
    let memory = memory();
    let world = world(saving(&memory)).await;
    world.create("b", &b"\0\xff"[..]).await;
    let objects = "
      - {objectName: a, objectType: csms, stage: SYSCURRENT, objectAlias: stage}
      - {objectName: b, objectType: csms, objectVersion: v1}";
    world.apply_for("other", objects, &["a", "b"]).await;
    world.publish(&world.pod("other", "2")).await.unwrap();
    let world = restarted_in_an_outage(world, |_| {}).await;
    let logs = Logs::capture();
    has_it(&world, "3").await;
    let line = "served what was fetched before the outage";
    assert!(logs.text().contains(line), "{}", logs.text());
    // Nobody asked the second one for the others, and the third has them all the same.
    let world = restarted_in_an_outage(world, |_| {}).await;
    for uid in ["2", "4"] {
        let pod = world.pod("other", uid);
        world.publish(&pod).await.unwrap();
        let expected = [
            ("b".to_owned(), 0o644, b"\0\xff".to_vec()),
            ("stage".to_owned(), 0o644, b"the value".to_vec()),
        ];
        assert_eq!(files(&pod.target_path), expected);
    }
}

#[tokio::test]
async fn it_stands_in_only_where_the_cloud_cannot_be_asked() {
    let memory = memory();
    let world = world(saving(&memory)).await;
    let world = world.restart_provider(|_| {}).await;
    world.put("a", "new", &[]).await;
    let pod = world.pod("app", "2");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "new");
    let world = world.restart_provider(|_| {}).await;
    world.pass(11 * SECOND).await;
    fail(&world, json!({"status": 403, "code": "CSMS.0302"})).await;
    let refused = world.publish(&world.pod("app", "3")).await;
    assert_eq!(refused.expect_err("a no").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_folder_a_restart_forgets() {
    let world = restarted_in_an_outage(world(Setup::default()).await, |_| {}).await;
    has_nothing(&world, "2").await;
}

#[tokio::test]
async fn it_is_there_after_a_sudden_end_too() {
    let memory = memory();
    let world = world(saving(&memory)).await;
    work(SAVED).await;
    let left = std::fs::read(file(&world.launch)).unwrap();
    let world = restarted_in_an_outage(world, |launch| {
        let (file, next) = (file(launch), file(launch).with_extension("next"));
        // Not as the orderly end left it.
        std::fs::write(&file, left).unwrap();
        std::fs::write(next, "half of").unwrap();
    })
    .await;
    let names = std::fs::read_dir(memory.path()).unwrap();
    assert_eq!(names.count(), 1, "what was half written is gone");
    has_it(&world, "2").await;
}

#[tokio::test]
async fn other_keys_get_nothing() {
    let memory = memory();
    let world = world(saving(&memory)).await;
    let world = restarted_in_an_outage(world, |launch| {
        launch.outside.env = env("OTHERACCESSKEY000001", DEMO_SECRET_KEY);
    })
    .await;
    has_nothing(&world, "2").await;
    let world = restarted_in_an_outage(world, |launch| {
        launch.outside.env = env(DEMO_ACCESS_KEY, "another");
    })
    .await;
    has_nothing(&world, "3").await;
    // Nor those of a pod.
    let mut pod = world.pod("app", "4");
    let keys = [("accessKey", "other"), ("secretKey", "other")];
    pod.secrets = Some(keys.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(world.publish(&pod).await.is_err());
    // It is still there for whom it was fetched.
    let world = restarted_in_an_outage(world, |launch| {
        launch.outside.env = env(DEMO_ACCESS_KEY, DEMO_SECRET_KEY);
    })
    .await;
    has_it(&world, "5").await;
}

#[tokio::test]
async fn the_same_keys_in_a_file_that_was_written_again_get_it() {
    let (memory, folder) = (memory(), tempfile::tempdir().unwrap());
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
        ..saving(&memory)
    };
    let world = world(setup).await;
    let world = restarted_in_an_outage(world, |_| write("OTHERACCESSKEY000001")).await;
    has_nothing(&world, "2").await;
    let world = restarted_in_an_outage(world, |_| write(DEMO_ACCESS_KEY)).await;
    has_it(&world, "3").await;
    write("OTHERACCESSKEY000001");
    has_nothing(&world, "4").await;
}

#[tokio::test]
async fn the_nodes_agency_gets_it_with_keys_that_are_others_each_time() {
    let memory = memory();
    let setup = Setup {
        env: Vec::new(),
        ..saving(&memory)
    };
    let world = restarted_in_an_outage(world(setup).await, |_| {}).await;
    has_it(&world, "2").await;
    // Keys of the environment are another identity, even of the same account.
    let world = restarted_in_an_outage(world, |launch| {
        launch.outside.env = env(DEMO_ACCESS_KEY, DEMO_SECRET_KEY);
    })
    .await;
    has_nothing(&world, "3").await;
}

#[tokio::test]
async fn another_place_is_another_identity() {
    let memory = memory();
    let world = world(saving(&memory)).await;
    let url = world.emulator.url().replace("127.0.0.1", "localhost");
    let elsewhere = |launch: &mut Launch| launch.config.cloud.csms_endpoint = Some(url);
    let world = restarted_in_an_outage(world, elsewhere).await;
    has_nothing(&world, "2").await;
}

#[tokio::test]
async fn its_age_counts_over_the_restart() {
    let limit = Duration::from_secs(3600);
    // How far the date moves while no provider runs, and whether the value is still good.
    for (seconds, good) in [(3500, true), (3600, false), (-30, true), (-120, false)] {
        let memory = memory();
        let setup = Setup {
            stale_limit: limit,
            ..saving(&memory)
        };
        let world = world(setup).await;
        let logs = Logs::capture();
        let world = restarted_in_an_outage(world, |launch| {
            let date = launch.outside.clock.now() + SignedDuration::from_secs(seconds);
            launch.outside.clock = Clock::from_tokio(date);
        })
        .await;
        // A connection that breaks has no date of the service to compare.
        fail(&world, json!({"reset": true})).await;
        if !good {
            let refused = world.publish(&world.pod("app", "2")).await;
            assert!(refused.is_err(), "{seconds}");
            assert!(logs.text().contains("versions=0 outdated=1"), "{seconds}");
            continue;
        }
        has_it(&world, "2").await;
        world.pass(limit).await;
        assert!(world.publish(&world.pod("app", "3")).await.is_err());
    }
}

#[tokio::test]
async fn what_was_refused_since_is_gone() {
    let no = json!({"status": 403, "code": "CSMS.0302"});
    // By the provider that fetched it, or by the one after it.
    for restart in [false, true] {
        let memory = memory();
        let mut world = world(saving(&memory)).await;
        work(SAVED).await;
        let before = std::fs::metadata(file(&world.launch)).unwrap().len();
        if restart {
            world = world.restart_provider(|_| {}).await;
        }
        fail(&world, no.clone()).await;
        world.publish(&world.pod("app", "2")).await.expect_err("no");
        // Soon, not with the orderly end only.
        work(SAVED).await;
        let left = std::fs::read(file(&world.launch)).unwrap();
        assert!(u64::try_from(left.len()).unwrap() < before);
        let world = restarted_in_an_outage(world, |launch| {
            std::fs::write(file(launch), left).unwrap();
        })
        .await;
        has_nothing(&world, "3").await;
        // Until it says yes again.
        world.clear_faults().await;
        has_it(&world, "4").await;
        let world = restarted_in_an_outage(world, |_| {}).await;
        has_it(&world, "5").await;
    }
}

#[tokio::test]
async fn a_no_of_the_second_region_counts_for_those_who_ask_it_first() {
    let memory = memory();
    let mut account = Account::demo();
    let (south, project) = ("cn-south-1", "f".repeat(32));
    account.projects.insert(south.into(), project.clone());
    let setup = saving(&memory);
    let emulator = emulator::Config {
        accounts: vec![account],
        ..setup.emulator
    };
    let mut world = world(Setup { emulator, ..setup }).await;
    world.owner.caller.region = south.parse().unwrap();
    world.owner.caller.project = Some(project);
    world.create("a", "the value").await;
    let objects = ("objects", OBJECTS);
    world.apply("app", &[objects, ("region", south)]).await;
    world.publish(&world.pod("app", "2")).await.unwrap();
    let world = world.restart_provider(|_| {}).await;
    // The second one says no, to a pod that asks another first.
    world
        .apply("app", &[objects, ("failoverRegion", south)])
        .await;
    for (region, fault) in [
        ("cn-north-4", json!({"status": 502})),
        (south, json!({"status": 403, "code": "CSMS.0302"})),
    ] {
        let read = json!({"region": region, "operation": "ShowSecretVersion"});
        world.fault(json!({"match": read, "fault": fault})).await;
    }
    world.pass(11 * SECOND).await;
    has_it(&world, "3").await;
    world.apply("app", &[objects, ("region", south)]).await;
    fail(&world, json!({"status": 502})).await;
    has_nothing(&world, "4").await;
}

#[tokio::test]
async fn a_no_to_the_same_keys_counts_whatever_their_file_looked_like_then() {
    let (memory, folder) = (memory(), tempfile::tempdir().unwrap());
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
        ..saving(&memory)
    };
    let world = world(setup).await;
    write("# longer\n");
    fail(&world, json!({"status": 403, "code": "CSMS.0302"})).await;
    world.publish(&world.pod("app", "2")).await.expect_err("no");
    let world = restarted_in_an_outage(world, |_| {}).await;
    has_nothing(&world, "3").await;
}
