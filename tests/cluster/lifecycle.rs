//! Many pods, restarts and outages.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::install;
use super::kubernetes::{
    apply, class, delete_pods, kubectl, pod, read, until, wait_event, wait_ready,
};
use super::node::{Node, text};

const CROWD: &str = "crowd";

fn create_crowd(node: &Node) -> Result<()> {
    if kubectl(&["get", "secretproviderclass", CROWD]).is_ok() {
        return Ok(());
    }
    node.create(CROWD, text("shared"))?;
    let objects = "- {objectName: crowd, objectType: csms, objectVersion: latest}";
    apply(&class("default", CROWD, objects, &[CROWD]))
}

fn pods(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i}")).collect()
}

fn names(pods: &[String]) -> Vec<&str> {
    pods.iter().map(String::as_str).collect()
}

fn start(names: &[&str]) -> Result<()> {
    apply(
        &names
            .iter()
            .map(|name| pod("default", name, &[CROWD]))
            .collect::<Vec<_>>(),
    )
}

fn all_read(names: &[&str]) -> Result<()> {
    wait_ready("default", names)?;
    for name in names {
        ensure!(
            read("default", name, "/mnt/secrets/crowd")? == "shared",
            "{name}"
        );
    }
    Ok(())
}

pub(crate) fn thirty_pods(node: &mut Node) -> Result<()> {
    create_crowd(node)?;
    let thirty = pods("crowd", 30);
    start(&names(&thirty))?;
    all_read(&names(&thirty))?;
    delete_pods("default", &names(&thirty))?;
    no_mounts_are_left()
}

/// Waits until no volume of a deleted pod is mounted.
pub(crate) fn no_mounts_are_left() -> Result<()> {
    until("unmounted volumes", || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let pods = kubectl(&[
            "get",
            "pods",
            "-A",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        ])?;
        let stale = mounts
            .lines()
            .filter(|line| line.contains("kubernetes.io~csi"));
        let stale: Vec<_> = stale
            .filter(|line| !pods.split(' ').any(|uid| line.contains(uid)))
            .collect();
        ensure!(stale.is_empty(), "{stale:?}");
        Ok(())
    })
}

pub(crate) fn killed(node: &mut Node) -> Result<()> {
    create_crowd(node)?;
    let before = pods("before", 5);
    start(&names(&before))?;
    install::kill()?;
    let after = pods("after", 5);
    start(&names(&after))?;
    delete_pods("default", &names(&before[..2]))?;
    install::wait_rolled_out()?;
    all_read(&names(&after))?;
    all_read(&names(&before[2..]))?;
    delete_pods("default", &names(&after))
}

/// A pod starts while the cloud is unreachable, and an Event reports it.
pub(crate) fn outage(node: &mut Node) -> Result<()> {
    create_crowd(node)?;
    start(&["before-outage"])?;
    all_read(&["before-outage"])?;
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        kubectl(&["-n", "emulator", "scale", "deployment/emulator", &replicas])
    };
    // Only here: the emulator keeps its secrets in memory, and no later case needs them.
    scale("0")?;
    kubectl(&[
        "-n",
        "emulator",
        "wait",
        "--for=delete",
        "pod",
        "--all",
        "--timeout=60s",
    ])?;
    // A new volume gets a cached version without a call for 10 s.
    std::thread::sleep(Duration::from_secs(11));
    start(&["in-outage"])?;
    all_read(&["in-outage"])?;
    until("the Event", || {
        let events = kubectl(&["get", "events.events.k8s.io", "-o", "json"])?;
        ensure!(
            events.contains("SecretNotConfirmed") && events.contains("CSMS is unreachable"),
            "no Event"
        );
        Ok(())
    })
}

/// The driver starts last, after provider and pod, as it may when the node boots.
pub(crate) fn driver_restarts(node: &mut Node) -> Result<()> {
    create_crowd(node)?;
    node.stop_driver()?;
    start(&["driverless"])?;
    wait_event("default", "driverless", &["MountVolume.SetUp failed"])?;
    node.start_driver()?;
    all_read(&["driverless"])?;
    delete_pods("default", &["driverless"])
}

/// Takes at most the poll interval of one minute and kubelet's remount interval of 60 to 90 s.
pub(crate) fn rotation(node: &mut Node) -> Result<()> {
    ensure!(read("default", "upgraded", "/mnt/secrets/installed")? == "one");
    node.put("installed", text("two"))?;
    let wait = || {
        until("the new version", || {
            ensure!(read("default", "upgraded", "/mnt/secrets/installed")? == "two");
            Ok(())
        })
    };
    // Up to two and a half minutes in total, more than one `until` allows.
    wait().or_else(|_| wait())
}
