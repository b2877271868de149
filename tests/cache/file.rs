//! The snapshot file: its permissions, when it is written, and how an invalid one is handled.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use dew_provider::cache::{SecretCache, SnapshotFile};
use dew_provider::cloud::{Cloud, CloudConfig};
use dew_provider::serve::{self, ServeConfig};
use dew_provider::telemetry::metrics::Metrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ring::digest::{SHA256, digest};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use tempfile::TempDir;

use crate::support::logs::Logs;
use crate::support::paused_clock::drive;
use crate::support::test_node::{Setup, TestNode};

const CANARY: &str = "CANARY-77ab01";
const SECOND: Duration = Duration::from_secs(1);

fn tmpfs_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// A node with this `--store-dir`, and a pod that has mounted the secret `a`.
async fn node_with_pod(store_dir: &Path) -> TestNode {
    let node = TestNode::with(Setup {
        store_dir: Some(store_dir.to_owned()),
        ..Setup::default()
    })
    .await;
    node.create("a", CANARY).await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.apply_for("app", objects, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    node
}

/// Every read of a secret version fails from now on.
async fn fail_reads(node: &TestNode) {
    let every_read = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}});
    node.fault(every_read).await;
}

async fn run_for(time: Duration) {
    drive(tokio::time::sleep(time)).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_value_is_only_in_a_file_that_only_its_owner_may_read() {
    let logs = Logs::capture();
    let dir = tmpfs_dir();
    // Does not exist yet.
    let store_dir = dir.path().join("nested/store-dir");
    let node = node_with_pod(&store_dir).await;
    run_for(6 * SECOND).await;
    let node = node.restart_provider(|_| {}).await;
    fail_reads(&node).await;
    node.pass(11 * SECOND).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
    let output = format!("{} {:?}", node.metrics().await, node.provider);
    assert!(!output.contains(CANARY) && !logs.text().contains(CANARY));
    assert_eq!(mode(&store_dir), 0o700);
    let names: Vec<_> = std::fs::read_dir(&store_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store"], "no partial file is left");
    assert_eq!(mode(&store_dir.join("store")), 0o600);
    let bytes = std::fs::read(store_dir.join("store")).unwrap();
    let matches = bytes
        .windows(CANARY.len())
        .filter(|w| *w == CANARY.as_bytes());
    assert_eq!(matches.count(), 1);
}

#[tokio::test]
async fn a_damaged_snapshot_is_reported_and_replaced() {
    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }
    type Damage = (&'static str, fn(&Path));
    let cases: [Damage; 12] = [
        ("its checksum is wrong", |path| {
            edit(path, |b| {
                let middle = b.len() / 2;
                b[middle] ^= 1;
            })
        }),
        ("its checksum is wrong", |path| {
            edit(path, |b| *b.last_mut().unwrap() ^= 0x80)
        }),
        ("its checksum is wrong", |path| edit(path, |b| b.push(0))),
        ("its checksum is wrong", |path| {
            edit(path, |b| b.truncate(b.len() - 1))
        }),
        ("it is truncated", |path| edit(path, |b| b.truncate(30))),
        ("it is not a snapshot", |path| edit(path, |b| b.clear())),
        ("it is not a snapshot", |path| edit(path, |b| b[0] ^= 0x20)),
        ("its format is 2, not 1", |path| {
            edit(path, |b| {
                let end = b.len() - 32;
                b[b"dew-provider store\n".len() + 3] = 2;
                let sum = digest(&SHA256, &b[..end]);
                b[end..].copy_from_slice(sum.as_ref());
            })
        }),
        ("its mode 0640 gives others access", |path| {
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
        ("it is too large: 134217728 bytes (limit", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(128 << 20).unwrap();
        }),
    ];
    for (why, damage) in cases {
        let dir = tmpfs_dir();
        let path = dir.path().join("store");
        let node = node_with_pod(dir.path()).await;
        fail_reads(&node).await;
        let logs = Logs::capture();
        let node = node.restart_provider(|_| damage(&path)).await;
        let result = node.publish(&node.pod("app", "2")).await;
        result.expect_err(why);
        let logs = logs.text();
        let warnings: Vec<_> = logs.lines().filter(|line| line.contains(why)).collect();
        assert_eq!(warnings.len(), 1, "{why}: {logs}");
        assert!(warnings[0].contains("WARN"), "{warnings:?}");
        // The damaged file is replaced at once.
        run_for(SECOND).await;
        assert!(path.symlink_metadata().unwrap().is_file(), "{why}");
        assert_eq!(mode(&path), 0o600, "{why}");
        let logs = Logs::capture();
        let node = node.restart_provider(|_| {}).await;
        assert!(!logs.text().contains("ignoring the snapshot file"), "{why}");
        drop(node);
    }
}

#[tokio::test]
async fn a_file_of_another_user_is_ignored() {
    use rustix::fs::{Uid, chown};
    let dir = tmpfs_dir();
    let path = dir.path().join("store");
    let node = node_with_pod(dir.path()).await;
    fail_reads(&node).await;
    let mut chowned = false;
    let logs = Logs::capture();
    let node = node
        .restart_provider(|_| chowned = chown(&path, Some(Uid::from_raw(12345)), None).is_ok())
        .await;
    if !chowned {
        return; // only root can change a file's owner
    }
    let result = node.publish(&node.pod("app", "2")).await;
    result.expect_err("the snapshot is ignored");
    assert!(logs.text().contains("it belongs to user 12345"));
}

#[tokio::test]
async fn the_file_is_written_at_once_and_then_every_five_seconds() {
    let dir = tmpfs_dir();
    let path = dir.path().join("store");
    let node = node_with_pod(dir.path()).await;
    run_for(6 * SECOND).await;
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let contains = |text: &str| {
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    };
    let (mut inodes, started) = (vec![inode()], tokio::time::Instant::now());
    for n in 0..10 {
        let (name, value) = (format!("s{n}"), format!("value-{n}"));
        node.create(&name, value.clone()).await;
        let objects = format!("- {{objectName: {name}, objectType: csms, objectVersion: v1}}");
        node.apply_for(&name, &objects, &[&name]).await;
        node.publish(&node.pod(&name, &name)).await.unwrap();
        run_for(SECOND / 5).await;
        inodes.extend(Some(inode()).filter(|now| inodes.last() != Some(now)));
        assert_eq!(contains(&value), n == 0, "{value}");
    }
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    assert_eq!(inodes.len(), 2, "one write, of the first version");
    run_for(5 * SECOND).await;
    let missing: Vec<_> = (0..10)
        .filter(|n| !contains(&format!("value-{n}")))
        .collect();
    assert_eq!(missing, [0; 0], "after {:?}", started.elapsed());
    inodes.push(inode());
    run_for(30 * SECOND).await;
    assert_eq!(inodes.last(), Some(&inode()), "nothing more to write");
    node.put("a", "a newer one", &[]).await;
    node.pass(120 * SECOND).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    run_for(SECOND).await;
    assert!(contains("a newer one") && !contains(CANARY));
}

#[tokio::test]
async fn confirmations_are_written_once_a_minute() {
    let dir = tmpfs_dir();
    let path = dir.path().join("store");
    let node = node_with_pod(dir.path()).await;
    run_for(6 * SECOND).await;
    let contents = || std::fs::read(&path).unwrap();
    let before = contents();
    run_for(120 * SECOND).await;
    assert_eq!(contents(), before, "nothing was confirmed");
    node.publish(&node.pod("app", "1")).await.unwrap();
    run_for(6 * SECOND).await;
    assert_eq!(contents(), before, "not at once");
    run_for(60 * SECOND).await;
    assert_ne!(contents(), before, "the confirmation is saved");
}

#[tokio::test]
async fn a_failed_write_is_logged_once_and_mounts_continue() {
    let dir = tmpfs_dir();
    let obstacle = dir.path().join("store.next");
    let node = node_with_pod(dir.path()).await;
    run_for(6 * SECOND).await;
    let logs = Logs::capture();
    std::fs::create_dir(&obstacle).unwrap();
    for n in 0..3 {
        node.put("a", format!("{n}"), &[]).await;
        node.pass(120 * SECOND).await;
        node.publish(&node.pod("app", "1")).await.unwrap();
        run_for(6 * SECOND).await;
    }
    let count = |what: &str| logs.text().matches(what).count();
    assert_eq!(count("could not write the snapshot"), 1, "{}", logs.text());
    assert!(dir.path().join("store").exists(), "the old file is kept");
    std::fs::remove_dir(&obstacle).unwrap();
    run_for(70 * SECOND).await;
    assert_eq!(count("the snapshot is written again"), 1, "{}", logs.text());
    // A rejected version must not stay in the file.
    std::fs::create_dir(&obstacle).unwrap();
    let denied = json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 403, "code": "CSMS.0302"}});
    node.fault(denied).await;
    node.publish(&node.pod("app", "2"))
        .await
        .expect_err("denied");
    run_for(6 * SECOND).await;
    assert!(!dir.path().join("store").exists());
}

#[tokio::test]
async fn an_unusable_store_dir_stops_the_start() {
    let dir = tmpfs_dir();
    let node = node_with_pod(dir.path()).await;
    let start = async |store_dir: &Path| {
        let config = ServeConfig {
            socket_dir: node.folder.path().join("others"),
            store_dir: Some(store_dir.to_owned()),
            ..node.launch.config.clone()
        };
        let started = drive(serve::start(config, node.launch.dependencies.clone())).await;
        started.expect_err("unusable").to_string()
    };
    let cases = [
        ("/proc", "not on a tmpfs, and secrets must not reach a disk"),
        ("/dev/shm", "others may write there"),
        ("/dev/null", "cannot be created"),
        (dir.path().to_str().unwrap(), "in use by another provider"),
    ];
    for (store_dir, why) in cases {
        let error = start(Path::new(store_dir)).await;
        assert!(error.contains(why) && error.contains(store_dir), "{error}");
    }
}

/// Random bytes, valid checksums over random bytes, and damaged snapshots all load nothing.
#[tokio::test]
async fn only_the_written_bytes_are_accepted_as_a_snapshot() {
    let dir = tmpfs_dir();
    let path = dir.path().join("store");
    let node = node_with_pod(dir.path()).await;
    let mut good = Vec::new();
    let node = node
        .restart_provider(|_| good = std::fs::read(&path).unwrap())
        .await;
    let (env, clock) = (Env::default(), node.launch.dependencies.clock.clone());
    drop(node);

    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = elsewhere.path().join("store");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let metrics = Metrics::new();
    let (jitter, counts) = (Jitter::seeded(1), metrics.cloud.clone());
    let cloud = Cloud::new(CloudConfig::default(), &env, clock.clone(), jitter, counts).unwrap();
    let cached_bytes = |bytes: &[u8], clock: Clock| {
        std::fs::write(&path, bytes).unwrap();
        let file = SnapshotFile::open(elsewhere.path(), clock).unwrap();
        let day = Duration::from_secs(24 * 3600);
        let cache = SecretCache::new(cloud.clone(), &metrics, day, Some(file));
        drop(cache);
        metrics.cache_bytes.get()
    };
    assert!(cached_bytes(&good, clock.clone()) > 0);
    let header = b"dew-provider store\n\0\0\0\x01";
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let damage = (any::<prop::sample::Index>(), 1_u8.., any::<bool>());
    TestRunner::new(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
    .run(&(bytes, damage), |(bytes, (at, bits, truncate))| {
        let mut checksummed = [&header[..], &bytes].concat();
        checksummed.extend_from_slice(digest(&SHA256, &checksummed).as_ref());
        let mut damaged = good.clone();
        let at = at.index(damaged.len());
        if truncate {
            damaged.truncate(at);
        } else {
            damaged[at] ^= bits;
        }
        for bytes in [bytes, checksummed, damaged] {
            prop_assert_eq!(cached_bytes(&bytes, clock.clone()), 0);
        }
        Ok(())
    })
    .unwrap();
}
