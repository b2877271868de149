//! Installs, tests, upgrades and uninstalls the chart.

use std::time::Duration;

use anyhow::{Result, ensure};
use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_SECRET_KEY};
use serde_json::{Value, json};

use super::kubernetes::{
    apply, class, delete_pods, kubectl, pod, read, run, tree, until, wait_event, wait_ready,
};
use super::node::{CLOUD, Node, text};

const RELEASE: &str = "dew-provider";
const NAMESPACE: &str = "kube-system";
const SELECTOR: &str =
    "app.kubernetes.io/name=dew-provider,app.kubernetes.io/instance=dew-provider";

/// The copy of the chart without the driver's chart, made by `tests/cluster/test`.
fn chart() -> String {
    std::env::var("DEW_CHART").expect("DEW_CHART is not set")
}

fn helm(arguments: &[&str]) -> Result<String> {
    let mut all = arguments.to_vec();
    all.extend(["--namespace", NAMESPACE]);
    run("helm", &all, "")
}

pub(crate) fn install(more: &[&str]) -> Result<String> {
    let chart = chart();
    let kubelet = std::env::var("DEW_KUBELET_ROOT")?;
    let (csms, iam) = (
        format!("endpoints.csms={CLOUD}"),
        format!("endpoints.iam={CLOUD}"),
    );
    let roots = ["", "secrets-store-csi-driver.linux."]
        .map(|prefix| format!("{prefix}kubeletRootDir={kubelet}"));
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--wait",
        "--timeout",
        "120s",
    ];
    for value in [
        "region=cn-north-4",
        &csms,
        &iam,
        &roots[0],
        &roots[1],
        "store.persist=true",
        "credentials.source=secret",
        "credentials.secret.name=csms",
        "test.secretName=installed",
        "endpoints.qps=50",
        "image.pullPolicy=Never",
    ] {
        arguments.extend(["--set", value]);
    }
    arguments.extend(more);
    helm(&arguments)
}

pub(crate) fn wait_rolled_out() -> Result<()> {
    kubectl(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        "daemonset/dew-provider",
        "--timeout=60s",
    ])
    .map(drop)
}

/// Kills the provider's pod without a grace period.
pub(crate) fn kill() -> Result<()> {
    kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "pod",
        "-l",
        SELECTOR,
        "--grace-period=0",
        "--force",
    ])
    .map(drop)
}

/// The provider starts last, after driver and pod: the pod waits, then starts.
pub(crate) fn provider_after_driver(node: &mut Node) -> Result<()> {
    node.create("installed", text("one"))?;
    let objects = "- {objectName: installed, objectType: csms, objectVersion: latest}";
    apply(&class("default", "installed", objects, &["installed"]))?;
    apply(&[pod("default", "early", &["installed"])])?;
    wait_event(
        "default",
        "early",
        &["provider not found: provider \"cce\""],
    )?;
    let file = format!("[basic]\nak = {DEMO_ACCESS_KEY}\nsk = {DEMO_SECRET_KEY}\n");
    apply(&[json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": "csms"},
        "stringData": {"credentials": file},
    })])?;
    install(&[])?;
    wait_ready("default", &["early"])?;
    ensure!(read("default", "early", "/mnt/secrets/installed")? == "one");
    Ok(())
}

pub(crate) fn release(_: &mut Node) -> Result<()> {
    wait_rolled_out()?;
    let set = kubectl(&["-n", NAMESPACE, "get", "daemonset", RELEASE, "-o", "json"])?;
    let set: Value = serde_json::from_str(&set)?;
    let spec = &set["spec"]["template"]["spec"];
    ensure!(spec["priorityClassName"] == "system-node-critical");
    ensure!(
        spec["hostNetwork"].is_null() && spec["tolerations"][0] == json!({"operator": "Exists"})
    );
    let security = &spec["containers"][0]["securityContext"];
    ensure!(
        security["readOnlyRootFilesystem"] == true
            && security["capabilities"]["drop"] == json!(["ALL"])
    );
    let paths: Vec<_> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v["hostPath"]["path"].as_str())
        .collect();
    let driver = format!(
        "{}/plugins/csi-secrets-store",
        std::env::var("DEW_KUBELET_ROOT")?
    );
    let expected = [
        "/var/run/secrets-store-csi-providers",
        &driver,
        "/run/dew-provider",
    ];
    ensure!(
        paths.len() == 3 && expected.iter().all(|path| paths.contains(path)),
        "host paths {paths:?}"
    );
    // What the API server permits the provider.
    let account = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    let is_allowed = |verb: &str, resource: &str| {
        kubectl(&["auth", "can-i", verb, resource, "-A", "--as", &account]).is_ok()
    };
    for (verb, resource, expected) in [
        ("get", "serviceaccounts", true),
        ("watch", "serviceaccounts", true),
        (
            "watch",
            "secretproviderclasses.secrets-store.csi.x-k8s.io",
            true,
        ),
        ("get", "secrets", false),
        ("list", "pods", true),
        ("get", "pods", false),
        ("delete", "pods", false),
        ("create", "secretrevisions.dew-provider.io", true),
        ("update", "leases.coordination.k8s.io", false),
        ("patch", "pods", false),
        ("create", "serviceaccounts/token", false),
        ("create", "events.events.k8s.io", true),
    ] {
        ensure!(
            is_allowed(verb, resource) == expected,
            "{verb} {resource}: expected {expected}"
        );
    }
    Ok(())
}

/// Shows why the chart runs the provider as root: kubelet creates the socket directory for root only.
pub(crate) fn only_root(_: &mut Node) -> Result<()> {
    let folder = "/var/run/secrets-store-csi-providers";
    let pod = |name: &str, user: u32| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": "dew-provider:0.1.0", "imagePullPolicy": "Never",
                    "args": ["serve", "--provider-name", name, "--service-account-allow-list", "off"],
                    "securityContext": {"runAsUser": user, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "sockets", "mountPath": folder}],
                }],
                "volumes": [{"name": "sockets", "hostPath": {"path": folder}}],
            },
        })
    };
    apply(&[pod("root", 0), pod("nobody", 65532)])?;
    until("the error of the other user", || {
        let log = kubectl(&["logs", "nobody"])?;
        ensure!(
            log.contains("nobody.sock: cannot be bound: Permission denied"),
            "{log}"
        );
        Ok(())
    })?;
    // Root needs no capabilities.
    until("the socket of root", || {
        ensure!(std::path::Path::new(folder).join("root.sock").exists());
        Ok(())
    })?;
    delete_pods("default", &["root", "nobody"])
}

pub(crate) fn helm_test(_: &mut Node) -> Result<()> {
    let output = helm(&["test", RELEASE, "--timeout", "120s"])?;
    ensure!(output.contains("Phase:          Succeeded"), "{output}");
    Ok(())
}

pub(crate) fn upgrade(_: &mut Node) -> Result<()> {
    let before = read("default", "early", "/mnt/secrets/installed")?;
    install(&[
        "--set",
        "rotation_poll_interval=1m",
        "--set",
        "logging.format=json",
    ])?;
    wait_rolled_out()?;
    ensure!(read("default", "early", "/mnt/secrets/installed")? == before);
    apply(&[pod("default", "upgraded", &["installed"])])?;
    wait_ready("default", &["upgraded"])?;
    let log = kubectl(&["-n", NAMESPACE, "logs", "-l", SELECTOR])?;
    ensure!(log.contains("\"interval_seconds\":60"), "{log}");
    // An upgrade with an invalid value changes nothing.
    ensure!(install(&["--set", "rotation_poll_interval=2min"]).is_err());
    wait_rolled_out()
}

pub(crate) fn dry_run(_: &mut Node) -> Result<()> {
    for folder in ["manifests/install.yaml", "manifests/examples"] {
        let path = tree(folder).display().to_string();
        kubectl(&["apply", "--dry-run=server", "-f", &path])?;
    }
    Ok(())
}

pub(crate) fn uninstall(_: &mut Node) -> Result<()> {
    helm(&["uninstall", RELEASE, "--wait", "--timeout", "60s"])?;
    // Meanwhile kubelet remounts the volume, every 60 to 90 s, and the driver finds no provider.
    std::thread::sleep(Duration::from_secs(95));
    read("default", "early", "/mnt/secrets/installed")?;
    until("the removal of the socket", || {
        ensure!(!std::path::Path::new("/var/run/secrets-store-csi-providers/cce.sock").exists());
        Ok(())
    })
}
