//! The layout of CCE's nodes: `/var/lib/kubelet` is a symbolic link to kubelet's root directory, and the driver runs in
//! a container, which cannot follow the link.

use std::path::Path;

use anyhow::{Result, ensure};

use super::install::{install, wait_rolled_out};
use super::kubernetes::{
    apply, class, delete_pods, files, kubectl, pod, read, tree, until, wait_event, wait_ready,
};
use super::node::{Node, text};

/// The default of both charts.
const LINK: &str = "/var/lib/kubelet";
/// What the release has since its upgrade.
const UPGRADED: [&str; 4] = [
    "--set",
    "rotation_poll_interval=1m",
    "--set",
    "logging.format=json",
];

pub(crate) fn kubelet_root(node: &mut Node) -> Result<()> {
    let root = node.kubelet().to_owned();
    ensure!(std::fs::read_link(LINK)? == root, "{LINK} is not the link");
    node.create("cce", text("value"))?;
    let objects =
        "- {objectName: cce, objectType: csms, objectVersion: latest, objectAlias: first}";
    apply(&class("default", "cce", objects, &["cce"]))?;

    driver_alone_is_wrong(node)?;
    both_are_wrong(&root)?;
    both_are_right(node, &root)
}

/// The driver has the link, and the provider cannot know: an empty directory without an error.
fn driver_alone_is_wrong(node: &mut Node) -> Result<()> {
    node.run_driver_in_container(Path::new(LINK))?;
    apply(&[pod("default", "cce-empty", &["cce"])])?;
    wait_ready("default", &["cce-empty"])?;
    ensure!(files("default", "cce-empty")?.is_empty());
    let field = "involvedObject.name=cce-empty,reason=FailedMount";
    let messages = "jsonpath={.items[*].message}";
    let failures = kubectl(&["get", "events", "--field-selector", field, "-o", messages])?;
    ensure!(failures.is_empty(), "{failures}");
    // The driver recorded a mount, with kubelet's real root directory in its path.
    let path = "jsonpath={.status.targetPath}";
    let status = [
        "get",
        "secretproviderclasspodstatus",
        "cce-empty-default-cce",
        "-o",
        path,
    ];
    ensure!(Path::new(&kubectl(&status)?).starts_with(node.kubelet()));
    Ok(())
}

/// The charts' defaults: the provider refuses each attempt, and names the value and kubelet's root directory.
fn both_are_wrong(root: &Path) -> Result<()> {
    let link = format!("kubeletRootDir={LINK}");
    let drivers = format!("secrets-store-csi-driver.linux.{link}");
    let mut values = UPGRADED.to_vec();
    values.extend(["--set", &link]);
    let error = install(&values).expect_err("the values differ").to_string();
    ensure!(
        error.contains("set both to kubelet's root directory"),
        "{error}"
    );
    values.extend(["--set", &drivers]);
    install(&values)?;
    wait_rolled_out()?;
    apply(&[pod("default", "cce-refused", &["cce"])])?;
    wait_event(
        "default",
        "cce-refused",
        &[
            "code = FailedPrecondition",
            "kubeletRootDir",
            &format!("is not below kubelet's root directory {LINK:?}"),
            &format!("which seems to be {root:?}"),
        ],
    )?;
    // The driver answers OK to an attempt that follows another one too soon.
    until("kubelet's next attempts", || {
        let field = "involvedObject.name=cce-refused,reason=FailedMount";
        let counts = "jsonpath={.items[*].count}";
        let counts = kubectl(&["get", "events", "--field-selector", field, "-o", counts])?;
        let attempts: u32 = counts.split(' ').map(|n| n.parse().unwrap_or(0)).sum();
        ensure!(attempts >= 3, "{attempts} attempts");
        Ok(())
    })?;
    let phase = [
        "get",
        "pod",
        "cce-refused",
        "-o",
        "jsonpath={.status.phase}",
    ];
    ensure!(kubectl(&phase)? == "Pending", "it started");
    Ok(())
}

fn both_are_right(node: &mut Node, root: &Path) -> Result<()> {
    node.run_driver_in_container(root)?;
    let cce = tree("charts/dew-provider/values-cce.yaml")
        .display()
        .to_string();
    let mut values = UPGRADED.to_vec();
    values.extend(["--values", &cce]);
    install(&values)?;
    wait_rolled_out()?;
    // kubelet tries again, and the pod starts.
    wait_ready("default", &["cce-refused"])?;
    ensure!(read("default", "cce-refused", "/mnt/secrets/first")? == "value");
    // A pod that started with an empty directory keeps it.
    ensure!(files("default", "cce-empty")?.is_empty());
    delete_pods("default", &["cce-empty"])?;
    apply(&[pod("default", "cce-empty", &["cce"])])?;
    wait_ready("default", &["cce-empty"])?;
    ensure!(read("default", "cce-empty", "/mnt/secrets/first")? == "value");
    // Changes arrive too.
    let objects =
        "- {objectName: cce, objectType: csms, objectVersion: latest, objectAlias: second}";
    apply(&class("default", "cce", objects, &["cce"]))?;
    until("the edited class", || {
        ensure!(read("default", "cce-refused", "/mnt/secrets/second")? == "value");
        Ok(())
    })?;
    delete_pods("default", &["cce-empty", "cce-refused"])?;
    super::lifecycle::no_mounts_are_left()
}
