//! What pods read from their volumes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use dew_provider::cloud::SecretValue;
use dew_provider::util::secret_bytes::SecretBytes;
use serde_json::Value as Json;

use super::cases::{CASES, Case, Expect, Value};
use super::kubernetes::{
    apply, class, delete_pods, files, kubectl, pod, read, tree, until, wait_event, wait_ready,
};
use super::node::{Node, text};

fn value(of: &Value) -> SecretValue {
    match of {
        Value::Text(of) => text(of),
        Value::Binary(bytes) => SecretValue::Binary(SecretBytes::new(bytes.to_vec())),
    }
}

/// Runs all cases of `tests/mount/cases.rs` at once, each as a pod in a namespace for this test.
pub(crate) fn table(node: &mut Node) -> Result<()> {
    kubectl(&["create", "namespace", "cases"])?;
    until("the namespace's ServiceAccount", || {
        kubectl(&["-n", "cases", "get", "serviceaccount", "default"])
    })?;
    let mut pods = Vec::new();
    for case in CASES {
        for (secret, versions) in case.secrets {
            node.create(secret, value(&versions[0]))?;
            for version in &versions[1..] {
                node.put(secret, value(version))?;
            }
        }
        apply(&class("cases", case.name, case.objects, case.allowed))?;
        pods.push(pod("cases", case.name, &[case.name]));
    }
    apply(&pods)?;
    let names = |wanted: fn(&Case) -> bool| {
        CASES
            .iter()
            .filter(move |case| wanted(case))
            .map(|case| case.name)
            .collect::<Vec<_>>()
    };
    let good = names(|case| matches!(case.expect, Expect::Files(_)));
    wait_ready("cases", &good)?;
    for case in CASES {
        match case.expect {
            Expect::Files(expected) => {
                let found = files("cases", case.name)?;
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(p, m, c)| ((*p).to_owned(), *m, c.to_vec()))
                    .collect();
                ensure!(found == expected, "{}: {found:?}", case.name);
            }
            Expect::Fails(code, texts) => {
                let code = format!("code = {code:?}");
                // The cases expect the namespace `default`.
                let texts: Vec<String> = texts
                    .iter()
                    .map(|text| text.replace("default/", "cases/"))
                    .collect();
                let mut all: Vec<&str> = texts.iter().map(String::as_str).collect();
                all.push(&code);
                wait_event("cases", case.name, &all)?;
            }
        }
    }
    // The driver records what each pod has mounted.
    let statuses = kubectl(&[
        "-n",
        "cases",
        "get",
        "secretproviderclasspodstatuses",
        "-o",
        "json",
    ])?;
    let statuses: Json = serde_json::from_str(&statuses)?;
    let recorded: BTreeSet<&str> = statuses["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|s| s["status"]["podName"].as_str())
        .collect();
    ensure!(recorded == good.iter().copied().collect(), "{recorded:?}");
    delete_pods(
        "cases",
        &CASES.iter().map(|case| case.name).collect::<Vec<_>>(),
    )
}

pub(crate) fn classes_and_namespaces(node: &mut Node) -> Result<()> {
    let names = ["two-a", "two-b"];
    for name in names {
        node.create(name, text(name))?;
        let objects = format!(
            "- {{objectName: {name}, objectType: csms, objectVersion: latest, objectAlias: file}}"
        );
        apply(&class("default", name, &objects, &names))?;
    }
    kubectl(&["create", "namespace", "other"])?;
    until("the namespace's ServiceAccount", || {
        kubectl(&["-n", "other", "get", "serviceaccount", "default"])
    })?;
    // In another namespace, the class of the same name has another secret.
    apply(&class(
        "other",
        "two-a",
        "- {objectName: two-b, objectType: csms, objectVersion: latest, objectAlias: file}",
        &names,
    ))?;
    apply(&[
        pod("default", "two", &names),
        pod("other", "two", &["two-a"]),
    ])?;
    wait_ready("default", &["two"])?;
    wait_ready("other", &["two"])?;
    ensure!(read("default", "two", "/mnt/secrets/file")? == "two-a");
    ensure!(read("default", "two", "/mnt/two-b/file")? == "two-b");
    ensure!(read("other", "two", "/mnt/secrets/file")? == "two-b");
    Ok(())
}

pub(crate) fn foreign_class(_: &mut Node) -> Result<()> {
    let account = class("other", "two-b", "[]", &[]);
    apply(&account[..1])?;
    apply(&[pod("other", "foreign", &["two-b"])])?;
    wait_event(
        "other",
        "foreign",
        &["failed to get secretproviderclass other/two-b", "not found"],
    )?;
    delete_pods("other", &["foreign"])
}

pub(crate) fn created_later(node: &mut Node) -> Result<()> {
    apply(&class(
        "default",
        "later",
        "- {objectName: later, objectType: csms, objectVersion: latest}",
        &["later"],
    ))?;
    apply(&[pod("default", "later", &["later"])])?;
    wait_event(
        "default",
        "later",
        &[
            "code = NotFound",
            "object \"later\"",
            "CSMS.0106",
            "request ID ",
        ],
    )?;
    node.create("later", text("here"))?;
    wait_ready("default", &["later"])?;
    ensure!(read("default", "later", "/mnt/secrets/later")? == "here");
    Ok(())
}

/// Applies each file of `manifests/examples` unchanged, with the secrets that it needs in the cloud.
pub(crate) fn examples(node: &mut Node) -> Result<()> {
    for entry in std::fs::read_dir(tree("manifests/examples"))? {
        let path = entry?.path();
        let manifest = std::fs::read_to_string(&path)?;
        // The allow-lists name the secrets.
        for list in manifest.split("cce.io/dew-resource: '").skip(1) {
            let list = list.split('\'').next().context("the list has no end")?;
            for name in serde_json::from_str::<Vec<String>>(list)? {
                // One example is pinned to v1 although there is a newer version.
                node.create(&name, text(r#"{"username":"app","password":"first"}"#))?;
                node.put(&name, text(r#"{"username":"app","password":"second"}"#))?;
            }
        }
        kubectl(&["apply", "-f", &path.display().to_string()])?;
    }
    let names = "jsonpath={.items[*].metadata.name}";
    let pods = kubectl(&["get", "pods", "-o", names])?;
    // One pod needs a Secret, which the simulated driver does not sync.
    let synced = |pod: &&str| node.is_real() || *pod != "api-login";
    wait_ready(
        "default",
        &pods.split(' ').filter(synced).collect::<Vec<_>>(),
    )?;
    ensure!(read("default", "shop", "/mnt/secrets/password")? == "second");
    Ok(())
}

pub(crate) fn synced_secret(node: &mut Node) -> Result<()> {
    if !node.is_real() {
        println!("cluster: skipped: only the real driver (DRIVER_BIN) syncs Secrets");
        return Ok(());
    }
    node.create("synced", text("in the environment"))?;
    let mut objects = class(
        "default",
        "synced",
        "- {objectName: synced, objectType: csms, objectVersion: latest}",
        &["synced"],
    );
    objects[1]["spec"]["secretObjects"] = serde_json::json!([{
        "secretName": "synced", "type": "Opaque", "data": [{"objectName": "synced", "key": "value"}],
    }]);
    apply(&objects)?;
    let mut pod = pod("default", "synced", &["synced"]);
    pod["spec"]["containers"][0]["env"] = serde_json::json!([{
        "name": "SYNCED", "valueFrom": {"secretKeyRef": {"name": "synced", "key": "value"}},
    }]);
    apply(&[pod])?;
    wait_ready("default", &["synced"])?;
    let variable = kubectl(&["exec", "synced", "--", "sh", "-c", "printf %s \"$SYNCED\""])?;
    ensure!(variable == "in the environment", "{variable}");
    delete_pods("default", &["synced"])?;
    until("the deletion of the Secret", || {
        ensure!(kubectl(&["get", "secret", "synced"]).is_err());
        Ok(())
    })
}
