//! The store's file: who may read it, when it is written, and what is made of a bad one.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{Cloud, Config, Env};
use dew_provider::observe::metrics::Metrics;
use dew_provider::serve;
use dew_provider::store::{Store, StoreFile};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::digest::{SHA256, digest};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use tempfile::TempDir;

use super::super::support::logs::Logs;
use super::super::support::still::hurry;
use super::super::support::world::{Setup, World};

const CANARY: &str = "CANARY-77ab01";
const SECOND: Duration = Duration::from_secs(1);

fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// With a pod that has the secret `a`.
async fn world(folder: &Path) -> World {
    let world = World::with(Setup {
        store_dir: Some(folder.to_owned()),
        ..Setup::default()
    })
    .await;
    world.create("a", CANARY).await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    world.apply_for("app", objects, &["a"]).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    world
}

async fn fail(world: &World) {
    let every_read = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}});
    world.fault(every_read).await;
}

async fn work(time: Duration) {
    hurry(tokio::time::sleep(time)).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_file_is_for_its_owner_and_the_only_place_of_the_value() {
    let logs = Logs::capture();
    let memory = memory();
    // A folder that is made.
    let folder = memory.path().join("below/this");
    let world = world(&folder).await;
    work(6 * SECOND).await;
    let world = world.restart_provider(|_| {}).await;
    fail(&world).await;
    world.pass(11 * SECOND).await;
    world.publish(&world.pod("app", "2")).await.unwrap();
    let seen = format!("{} {:?}", world.metrics().await, world.provider);
    assert!(!seen.contains(CANARY) && !logs.text().contains(CANARY));
    assert_eq!(mode(&folder), 0o700);
    let names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store"], "and nothing that was half written");
    assert_eq!(mode(&folder.join("store")), 0o600);
    let bytes = std::fs::read(folder.join("store")).unwrap();
    let times = bytes
        .windows(CANARY.len())
        .filter(|w| *w == CANARY.as_bytes());
    assert_eq!(times.count(), 1);
}

#[tokio::test]
async fn what_is_not_as_it_was_left_is_told_and_replaced() {
    fn changed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 12] = [
        ("its checksum is wrong", |path| {
            changed(path, |b| {
                let middle = b.len() / 2;
                b[middle] ^= 1;
            })
        }),
        ("its checksum is wrong", |path| {
            changed(path, |b| *b.last_mut().unwrap() ^= 0x80)
        }),
        ("its checksum is wrong", |path| changed(path, |b| b.push(0))),
        ("its checksum is wrong", |path| {
            changed(path, |b| b.truncate(b.len() - 1))
        }),
        ("it is cut short", |path| changed(path, |b| b.truncate(30))),
        ("it is not a store", |path| changed(path, |b| b.clear())),
        ("it is not a store", |path| changed(path, |b| b[0] ^= 0x20)),
        ("its format is 2, not 1", |path| {
            changed(path, |b| {
                let end = b.len() - 32;
                b[b"dew-provider store\n".len() + 3] = 2;
                let sum = digest(&SHA256, &b[..end]);
                b[end..].copy_from_slice(sum.as_ref());
            })
        }),
        ("its mode 0640 lets others use it", |path| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
        }),
        ("it is a symbolic link", |path| {
            let real = path.with_extension("real");
            std::fs::rename(path, &real).unwrap();
            symlink(real, path).unwrap();
        }),
        ("it is not a regular file", |path| {
            std::fs::remove_file(path).unwrap();
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }),
        ("it has 134217728 bytes, of at most", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(128 << 20).unwrap();
        }),
    ];
    for (why, harm) in harms {
        let memory = memory();
        let path = memory.path().join("store");
        let world = world(memory.path()).await;
        fail(&world).await;
        let logs = Logs::capture();
        let world = world.restart_provider(|_| harm(&path)).await;
        let refused = world.publish(&world.pod("app", "2")).await;
        refused.expect_err(why);
        let logs = logs.text();
        let told: Vec<_> = logs.lines().filter(|line| line.contains(why)).collect();
        assert_eq!(told.len(), 1, "{why}: {logs}");
        assert!(told[0].contains("WARN"), "{told:?}");
        // A good one comes at once, so that a bad one is not left lying about.
        work(SECOND).await;
        assert!(path.symlink_metadata().unwrap().is_file(), "{why}");
        assert_eq!(mode(&path), 0o600, "{why}");
        let logs = Logs::capture();
        let world = world.restart_provider(|_| {}).await;
        assert!(!logs.text().contains("is not used"), "{why}");
        drop(world);
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_used() {
    use rustix::fs::{Uid, chown};
    let memory = memory();
    let path = memory.path().join("store");
    let world = world(memory.path()).await;
    fail(&world).await;
    let mut given = false;
    let logs = Logs::capture();
    let world = world
        .restart_provider(|_| given = chown(&path, Some(Uid::from_raw(12345)), None).is_ok())
        .await;
    if !given {
        return; // only root can give a file away
    }
    let refused = world.publish(&world.pod("app", "2")).await;
    refused.expect_err("foreign");
    assert!(logs.text().contains("it belongs to user 12345"));
}

#[tokio::test]
async fn it_is_written_at_once_and_then_every_five_seconds() {
    let memory = memory();
    let path = memory.path().join("store");
    let world = world(memory.path()).await;
    work(6 * SECOND).await;
    let file = || std::fs::metadata(&path).unwrap().ino();
    let holds = |text: &str| {
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    };
    let (mut seen, begun) = (vec![file()], tokio::time::Instant::now());
    for n in 0..10 {
        let (name, value) = (format!("s{n}"), format!("value-{n}"));
        world.create(&name, value.clone()).await;
        let objects = format!("- {{objectName: {name}, objectType: csms, objectVersion: v1}}");
        world.apply_for(&name, &objects, &[&name]).await;
        world.publish(&world.pod(&name, &name)).await.unwrap();
        work(SECOND / 5).await;
        seen.extend(Some(file()).filter(|now| seen.last() != Some(now)));
        assert_eq!(holds(&value), n == 0, "{value}");
    }
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(seen.len(), 2, "one writing, of the first");
    work(5 * SECOND).await;
    let missing: Vec<_> = (0..10).filter(|n| !holds(&format!("value-{n}"))).collect();
    assert_eq!(missing, [0; 0], "after {:?}", begun.elapsed());
    seen.push(file());
    work(30 * SECOND).await;
    assert_eq!(seen.last(), Some(&file()), "nothing more to write");
    world.put("a", "a newer one", &[]).await;
    world.pass(120 * SECOND).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    work(SECOND).await;
    assert!(holds("a newer one") && !holds(CANARY));
}

#[tokio::test]
async fn what_was_only_confirmed_is_written_once_a_minute() {
    let memory = memory();
    let path = memory.path().join("store");
    let world = world(memory.path()).await;
    work(6 * SECOND).await;
    let file = || std::fs::read(&path).unwrap();
    let before = file();
    work(120 * SECOND).await;
    assert_eq!(file(), before, "nobody asked");
    world.publish(&world.pod("app", "1")).await.unwrap();
    work(6 * SECOND).await;
    assert_eq!(file(), before, "not at once");
    work(60 * SECOND).await;
    assert_ne!(file(), before, "it is younger now");
}

#[tokio::test]
async fn failing_to_write_is_told_once_and_harms_nobody() {
    let memory = memory();
    let in_the_way = memory.path().join("store.next");
    let world = world(memory.path()).await;
    work(6 * SECOND).await;
    let logs = Logs::capture();
    std::fs::create_dir(&in_the_way).unwrap();
    for n in 0..3 {
        world.put("a", format!("{n}"), &[]).await;
        world.pass(120 * SECOND).await;
        world.publish(&world.pod("app", "1")).await.unwrap();
        work(6 * SECOND).await;
    }
    let count = |what: &str| logs.text().matches(what).count();
    assert_eq!(count("the store cannot be saved"), 1, "{}", logs.text());
    assert!(
        memory.path().join("store").exists(),
        "an old one is better than none"
    );
    std::fs::remove_dir(&in_the_way).unwrap();
    work(70 * SECOND).await;
    assert_eq!(count("the store is saved again"), 1, "{}", logs.text());
    // But what was refused must not stay.
    std::fs::create_dir(&in_the_way).unwrap();
    let denied = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 403, "code": "CSMS.0302"}});
    world.fault(denied).await;
    world.publish(&world.pod("app", "2")).await.expect_err("no");
    work(6 * SECOND).await;
    assert!(!memory.path().join("store").exists());
}

#[tokio::test]
async fn a_folder_that_will_not_do_stops_the_start() {
    let memory = memory();
    let world = world(memory.path()).await;
    let start = async |folder: &Path| {
        let config = serve::Config {
            socket_dir: world.folder.path().join("others"),
            store_dir: Some(folder.to_owned()),
            ..world.launch.config.clone()
        };
        let started = hurry(serve::start(config, world.launch.outside.clone())).await;
        started.expect_err("it will not do").to_string()
    };
    let cases = [
        (
            "/proc",
            "it is not on a tmpfs, and values of secrets must not reach a disk",
        ),
        ("/dev/shm", "others may write there"),
        ("/dev/null", "it cannot be made"),
        (memory.path().to_str().unwrap(), "another provider uses it"),
    ];
    for (folder, why) in cases {
        let told = start(Path::new(folder)).await;
        assert!(told.contains(why) && told.contains(folder), "{told}");
    }
}

/// Whatever is in the file: nothing breaks, and nothing comes of it.
#[tokio::test]
async fn no_bytes_are_a_store_but_those_that_were_written() {
    let memory = memory();
    let path = memory.path().join("store");
    let world = world(memory.path()).await;
    let mut good = Vec::new();
    let world = world
        .restart_provider(|_| good = std::fs::read(&path).unwrap())
        .await;
    let (env, clock) = (Env::default(), world.launch.outside.clock.clone());
    drop(world);

    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = elsewhere.path().join("store");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let metrics = Metrics::new();
    let (jitter, counts) = (Jitter::seeded(1), metrics.cloud.clone());
    let cloud = Cloud::new(Config::default(), &env, clock.clone(), jitter, counts).unwrap();
    let held = |bytes: &[u8], clock: Clock| {
        std::fs::write(&path, bytes).unwrap();
        let file = StoreFile::open(elsewhere.path(), clock).unwrap();
        let day = Duration::from_secs(24 * 3600);
        let store = Store::new(cloud.clone(), &metrics, day, Some(file));
        drop(store);
        metrics.store_bytes.get()
    };
    assert!(held(&good, clock.clone()) > 0);
    let head = b"dew-provider store\n\0\0\0\x01";
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let harm = (any::<prop::sample::Index>(), 1_u8.., any::<bool>());
    TestRunner::new(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
    .run(&(bytes, harm), |(bytes, (at, bits, cut))| {
        let mut summed = [&head[..], &bytes].concat();
        summed.extend_from_slice(digest(&SHA256, &summed).as_ref());
        let mut harmed = good.clone();
        let at = at.index(harmed.len());
        if cut {
            harmed.truncate(at);
        } else {
            harmed[at] ^= bits;
        }
        for bytes in [bytes, summed, harmed] {
            prop_assert_eq!(held(&bytes, clock.clone()), 0);
        }
        Ok(())
    })
    .unwrap();
}
