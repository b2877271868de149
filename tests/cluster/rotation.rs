//! What moves, or is edited, while pods run.

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
use super::{http, life};

const MANY: &str = "many";
const PODS: usize = 20;
/// `rotation_poll_interval` of the release by now.
const INTERVAL: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// The volume of a pod, as a folder of the node.
fn volume(node: &Node, uid: &str) -> PathBuf {
    let folder = format!("pods/{uid}/volumes/kubernetes.io~csi/v0/mount");
    node.kubelet().join(folder)
}

/// Names and UIDs of pods whose name begins so.
fn pods(prefix: &str) -> Result<Vec<(String, String)>> {
    let list: Value = serde_json::from_str(&kubectl(&["get", "pods", "-o", "json"])?)?;
    let text = |pod: &Value, field: &str| pod["metadata"][field].as_str().map(str::to_owned);
    let all = list["items"].as_array().context("no list")?;
    let found = all
        .iter()
        .filter_map(|pod| Some((text(pod, "name")?, text(pod, "uid")?)));
    Ok(found.filter(|(name, _)| name.starts_with(prefix)).collect())
}

/// Waits until every one of these files holds a text; the time it took.
fn all_hold(files: &[PathBuf], wanted: &str, most: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let behind =
            |file: &&PathBuf| std::fs::read_to_string(file).ok().as_deref() != Some(wanted);
        let behind = files.iter().filter(behind).count();
        if behind == 0 {
            return Ok(begun.elapsed());
        }
        let waited = begun.elapsed();
        ensure!(
            waited < most,
            "{behind} of {} do not hold {wanted:?} after {waited:?}",
            files.len()
        );
        std::thread::sleep(LOOK);
    }
}

fn control(method: Method, path: &str, body: &str) -> Result<Value> {
    let url = format!("{CLOUD}/_emulator/{path}");
    let reply = Handle::current().block_on(http::send(method, &url, &[], body));
    ensure!(reply.status < 300, "{reply:?}");
    Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
}

/// Calls of an operation for a secret since they were last cleared.
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

/// 20 pods get a new version within the interval and 5 s, for one value call.
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
    // A little more than is promised, for the test's own looking.
    let took = all_hold(&files, "two", INTERVAL + Duration::from_secs(7))?;
    println!(
        "cluster: a new version was in {PODS} pods after {:.1} s",
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
    wait_event_of_some("SecretRotated", "v1 → v2")?;
    println!("{}", kubectl(&["get", "srev"])?.trim_end());
    Ok(())
}

/// Events are bounded, so some pods have one.
fn wait_event_of_some(reason: &str, text: &str) -> Result<()> {
    until(text, || {
        let events = kubectl(&["get", "events.events.k8s.io", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let told = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| {
                event["reason"] == reason
                    && event["note"]
                        .as_str()
                        .is_some_and(|note| note.contains(text))
            });
        ensure!(told.count() > 5);
        Ok(())
    })
}

/// An edited class is in all 20 pods within two seconds; a wrong one is told, and changes nothing.
pub(crate) fn edits(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    for (version, value) in [("v1", "one"), ("latest", "two")] {
        // Beyond the second in which the driver leaves a changed volume alone.
        std::thread::sleep(Duration::from_secs(2));
        pin(version)?;
        let took = all_hold(&files, value, Duration::from_secs(2))?;
        println!(
            "cluster: an edit was in {PODS} pods after {:.2} s",
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
        // Bounded: any one of them.
        |_| wait_event("default", "many-19", &["the volume keeps its files"]),
    )?;
    all_hold(&files, "two", Duration::from_secs(1))?;
    pin("latest")
}

/// The cloud is away and the provider starts anew: pods go on, and a new one starts.
pub(crate) fn restart_in_outage(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    control(Method::POST, "faults", r#"{"fault": {"status": 502}}"#)?;
    let tried = (|| {
        install::kill()?;
        install::wait_rolled_out()?;
        apply(&[pod("default", "in-restart", &[MANY])])?;
        wait_ready("default", &["in-restart"])?;
        ensure!(read("default", "in-restart", &format!("/mnt/secrets/{MANY}"))? == "two");
        // Events are bounded: those of the pods that go on count too.
        wait_event_of_some("SecretNotConfirmed", "CSMS could not be asked")?;
        all_hold(&files, "two", Duration::from_secs(1))
    })();
    control(Method::DELETE, "faults", "")?;
    tried?;
    delete_pods("default", &["in-restart"])
}

/// Both the API server and the leader end: within two intervals it goes on.
pub(crate) fn everything_restarts(node: &mut Node) -> Result<()> {
    let files = files(node)?;
    kill("kube-apiserver")?;
    until("the API server", || kubectl(&["get", "--raw", "/readyz"]))?;
    install::kill()?;
    node.put(MANY, text("three"))?;
    let took = all_hold(&files, "three", 2 * INTERVAL)?;
    println!(
        "cluster: after both restarts it took {:.1} s",
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

/// 200 pods come and go while their volumes are filled anew every second or two.
pub(crate) fn comings_and_goings(node: &mut Node) -> Result<()> {
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
                // The process's own view of a few: a call takes longer than the read of a file.
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
        let edits = edits.join().expect("the editor")?;
        println!(
            "cluster: {} pods came and went under {edits} edits",
            WAVES * EACH
        );
        waves
    })?;
    life::nothing_stays()?;
    until("the end of the pods' folders", || {
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
    // In order again for what follows.
    pin("latest")
}
