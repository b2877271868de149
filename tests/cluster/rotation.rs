//! New versions, edited classes and restarts while pods run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::http::Method;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::runtime::Handle;

use super::install;
use super::kubernetes::{
    apply, class, delete_pods, kubectl, pod, read, until, wait_event, wait_ready,
};
use super::node::{CLOUD, Node, text};
use super::{http, lifecycle};

const MANY: &str = "many";
const PODS: usize = 20;
/// `rotation_poll_interval` of the release since its upgrade.
const INTERVAL: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The directory of a pod's volume on the node.
fn volume(node: &Node, uid: &str) -> PathBuf {
    let folder = format!("pods/{uid}/volumes/kubernetes.io~csi/v0/mount");
    node.kubelet().join(folder)
}

/// Names and UIDs of the pods whose name has this prefix.
fn pods(prefix: &str) -> Result<Vec<(String, String)>> {
    let list: Value = serde_json::from_str(&kubectl(&["get", "pods", "-o", "json"])?)?;
    let text = |pod: &Value, field: &str| pod["metadata"][field].as_str().map(str::to_owned);
    let all = list["items"].as_array().context("not a list")?;
    let found = all
        .iter()
        .filter_map(|pod| Some((text(pod, "name")?, text(pod, "uid")?)));
    Ok(found.filter(|(name, _)| name.starts_with(prefix)).collect())
}

/// Waits until each of these files contains `wanted`, and returns how long it took.
fn all_hold(files: &[PathBuf], wanted: &str, most: Duration) -> Result<Duration> {
    let started = Instant::now();
    loop {
        let behind =
            |file: &&PathBuf| std::fs::read_to_string(file).ok().as_deref() != Some(wanted);
        let behind = files.iter().filter(behind).count();
        if behind == 0 {
            return Ok(started.elapsed());
        }
        let waited = started.elapsed();
        ensure!(
            waited < most,
            "{behind} of {} files do not contain {wanted:?} after {waited:?}",
            files.len()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn control(method: Method, path: &str, body: &str) -> Result<Value> {
    let url = format!("{CLOUD}/_emulator/{path}");
    let reply = Handle::current().block_on(http::send(method, &url, &[], body));
    ensure!(reply.status < 300, "{reply:?}");
    Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
}

/// How often an operation was called for a secret since calls were last cleared.
fn calls(operation: &str, secret: &str) -> Result<usize> {
    let seen = control(Method::GET, "calls", "")?;
    let calls = seen["calls"].as_array().context("no calls")?;
    let of = |call: &&Value| call["operation"] == operation && call["secret"] == secret;
    Ok(calls.iter().filter(of).count())
}

fn names() -> Vec<String> {
    (0..PODS).map(|i| format!("{MANY}-{i:02}")).collect()
}

fn pin(version: &str) -> Result<()> {
    let objects = format!("- {{objectName: {MANY}, objectType: csms, objectVersion: {version}}}");
    apply(&class("default", MANY, &objects, &[MANY])[1..])
}

fn files(node: &Node) -> Result<Vec<PathBuf>> {
    let pods = pods(&format!("{MANY}-"))?;
    Ok(pods
        .iter()
        .map(|(_, uid)| volume(node, uid).join(MANY))
        .collect())
}

/// 20 pods get a new version within the interval and 5 s, with one value call.
pub(crate) fn twenty_pods(node: &mut Node) -> Result<()> {
    node.create(MANY, text("one"))?;
    let objects = format!("- {{objectName: {MANY}, objectType: csms, objectVersion: latest}}");
    apply(&class("default", MANY, &objects, &[MANY]))?;
    let names = names();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    apply(
        &all.iter()
            .map(|name| pod("default", name, &[MANY]))
            .collect::<Vec<_>>(),
    )?;
    wait_ready("default", &all)?;
    let files = files(node)?;
    ensure!(files.len() == PODS, "{files:?}");
    until("the SecretRevision", || {
        let revisions = kubectl(&["get", "srev"])?;
        ensure!(
            revisions
                .lines()
                .any(|l| l.contains(MANY) && l.contains("v1") && l.contains("True")),
            "{revisions}"
        );
        Ok(())
    })?;
    control(Method::DELETE, "calls", "")?;
    node.put(MANY, text("two"))?;
    // 2 s more than promised, for the test's own checks.
    let took = all_hold(&files, "two", INTERVAL + Duration::from_secs(7))?;
    println!(
        "cluster: a new version reached {PODS} pods after {:.1} s",
        took.as_secs_f64()
    );
    for name in &all {
        ensure!(read("default", name, &format!("/mnt/secrets/{MANY}"))? == "two");
    }
    ensure!(
        calls("ShowSecretVersion", MANY)? == 1,
        "more than one value call"
    );
    until("the driver's records", || {
        let records = kubectl(&["get", "secretproviderclasspodstatuses", "-o", "json"])?;
        let records: Value = serde_json::from_str(&records)?;
        let new = records["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|record| {
                let version = record["status"]["objects"][0]["version"].as_str();
                record["status"]["secretProviderClassName"] == MANY
                    && version.is_some_and(|version| version.starts_with("v2-"))
            });
        ensure!(new.count() == PODS);
        Ok(())
    })?;
    wait_event_of_several("SecretRotated", "v1 → v2")?;
    println!("{}", kubectl(&["get", "srev"])?.trim_end());
    Ok(())
}

/// Waits until more than five pods have such an Event; the rate limit for Events excludes some pods.
fn wait_event_of_several(reason: &str, text: &str) -> Result<()> {
    until(text, || {
        let events = kubectl(&["get", "events.events.k8s.io", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let found = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| {
                event["reason"] == reason
                    && event["note"]
                        .as_str()
                        .is_some_and(|note| note.contains(text))
            });
        ensure!(found.count() > 5);
        Ok(())
    })
}

/// An edited class reaches all 20 pods within two seconds; an invalid one is reported and changes no file.
pub(crate) fn edits(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    for (version, value) in [("v1", "one"), ("latest", "two")] {
        // The driver skips a volume for one second after a change.
        std::thread::sleep(Duration::from_secs(2));
        pin(version)?;
        let took = all_hold(&files, value, Duration::from_secs(2))?;
        println!(
            "cluster: an edit reached {PODS} pods after {:.2} s",
            took.as_secs_f64()
        );
    }
    pin("newest")?;
    wait_event("default", MANY, &["objectVersion", "keep their files"])?;
    wait_event(
        "default",
        "many-00",
        &["the volume keeps its files", "objectVersion"],
    )
    .or_else(
        // Events are rate-limited, so not every pod has one.
        |_| wait_event("default", "many-19", &["the volume keeps its files"]),
    )?;
    all_hold(&files, "two", Duration::from_secs(1))?;
    pin("latest")
}

/// The provider restarts while the cloud is unreachable: running pods keep their files, and a new pod starts.
pub(crate) fn restart_in_outage(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    control(Method::POST, "faults", r#"{"fault": {"status": 502}}"#)?;
    let result = (|| {
        install::kill()?;
        install::wait_rolled_out()?;
        apply(&[pod("default", "in-restart", &[MANY])])?;
        wait_ready("default", &["in-restart"])?;
        ensure!(read("default", "in-restart", &format!("/mnt/secrets/{MANY}"))? == "two");
        // Events are rate-limited, so those of the running pods count as well.
        wait_event_of_several("SecretNotConfirmed", "CSMS is unreachable")?;
        all_hold(&files, "two", Duration::from_secs(1))
    })();
    control(Method::DELETE, "faults", "")?;
    result?;
    delete_pods("default", &["in-restart"])
}

/// API server and leader are killed; a new version still arrives within two intervals.
pub(crate) fn everything_restarts(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    kill("kube-apiserver")?;
    until("the API server", || kubectl(&["get", "--raw", "/readyz"]))?;
    install::kill()?;
    node.put(MANY, text("three"))?;
    let took = all_hold(&files, "three", 2 * INTERVAL)?;
    println!(
        "cluster: a new version reached {PODS} pods {:.1} s after both restarts",
        took.as_secs_f64()
    );
    install::wait_rolled_out()
}

fn kill(name: &str) -> Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let is = std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        if let (true, Some(pid)) = (is, path.file_name().and_then(|pid| pid.to_str())) {
            super::kubernetes::run("kill", &["-9", pid], "")?;
        }
    }
    Ok(())
}

/// 200 pods start and stop while their class is edited every 1.2 s.
pub(crate) fn pods_under_nudges(node: &mut Node) -> Result<()> {
    const WAVES: usize = 5;
    const EACH: usize = 40;
    let names = names();
    delete_pods(
        "default",
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let edits = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                pin(["v1", "v2", "latest"][count % 3])?;
                count += 1;
                std::thread::sleep(Duration::from_millis(1200));
            }
            anyhow::Ok(count)
        });
        let waves = (0..WAVES).try_for_each(|wave| {
            let names: Vec<String> = (0..EACH).map(|i| format!("wave{wave}-{i}")).collect();
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            apply(
                &all.iter()
                    .map(|n| pod("default", n, &[MANY]))
                    .collect::<Vec<_>>(),
            )?;
            wait_ready("default", &all)?;
            for (name, uid) in pods(&format!("wave{wave}-"))? {
                let file = volume(node, &uid).join(MANY);
                let value = std::fs::read_to_string(&file).with_context(|| name.clone())?;
                // Only for some pods: an exec takes longer than reading a file.
                if name.ends_with('7') {
                    let path = format!("/mnt/secrets/{MANY}");
                    let value = read("default", &name, &path)?;
                    ensure!(
                        ["one", "two", "three"].contains(&value.as_str()),
                        "{name}: {value:?}"
                    );
                }
                ensure!(
                    ["one", "two", "three"].contains(&value.as_str()),
                    "{name}: {value:?}"
                );
            }
            delete_pods("default", &all)
        });
        done.store(true, Ordering::Relaxed);
        let edits = edits.join().expect("the editing thread panicked")?;
        println!(
            "cluster: {} pods started and stopped during {edits} edits",
            WAVES * EACH
        );
        waves
    })?;
    lifecycle::no_mounts_are_left()?;
    until("the removal of the pods' directories", || {
        let live: Vec<String> = serde_json::from_str::<Value>(&kubectl(&[
            "get", "pods", "-A", "-o", "json",
        ])?)?["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned))
            .collect();
        let left = std::fs::read_dir(node.kubelet().join("pods"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|uid| !live.contains(uid))
            .filter(|uid| Path::new(&volume(node, uid)).exists())
            .collect::<Vec<_>>();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    // Restore the class for the cases that follow.
    pin("latest")
}
