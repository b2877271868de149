//! What a person with kubectl and helm would do.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Anything that takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Runs a program; its output, or what it said of its failure.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let done = child.wait_with_output()?;
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    ensure!(
        done.status.success(),
        "{program} {}: {out}{err}",
        arguments.join(" ")
    );
    Ok(out.into_owned())
}

pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments, "")
}

/// Creates or changes objects.
pub(crate) fn apply(objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    run("kubectl", &["apply", "-f", "-"], &list.to_string()).map(drop)
}

/// Tries until it succeeds.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("gave up: {what}")));
            }
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

pub(crate) fn wait_ready(namespace: &str, pods: &[&str]) -> Result<()> {
    let names: Vec<String> = pods.iter().map(|pod| format!("pod/{pod}")).collect();
    let mut arguments = vec![
        "-n",
        namespace,
        "wait",
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    arguments.extend(names.iter().map(String::as_str));
    kubectl(&arguments).map(drop)
}

pub(crate) fn delete_pods(namespace: &str, pods: &[&str]) -> Result<()> {
    let mut arguments = vec![
        "-n",
        namespace,
        "delete",
        "pod",
        "--grace-period=1",
        "--wait=true",
    ];
    arguments.extend(pods);
    kubectl(&arguments).map(drop)
}

/// Waits for an event of the pod whose text has all of these.
pub(crate) fn wait_event(namespace: &str, pod: &str, texts: &[&str]) -> Result<()> {
    until(&format!("an event of {pod} with {texts:?}"), || {
        let field = format!("involvedObject.name={pod}");
        let events = kubectl(&[
            "-n",
            namespace,
            "get",
            "events",
            "--field-selector",
            &field,
            "-o",
            "json",
        ])?;
        let events: Value = serde_json::from_str(&events)?;
        let told: Vec<&str> = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e["message"].as_str())
            .collect();
        ensure!(
            told.iter()
                .any(|told| texts.iter().all(|text| told.contains(text))),
            "its events: {told:#?}"
        );
        Ok(())
    })
}

/// What the pod's own process reads: path, mode and contents of each file below the mount, in order.
pub(crate) fn files(namespace: &str, pod: &str) -> Result<Vec<(String, u32, Vec<u8>)>> {
    let script = r#"cd /mnt/secrets && find -L . -path './..*' -prune -o -type f -print | while read -r f; do
        echo "${f#./} $(stat -L -c %a "$f") $(base64 -w0 <"$f")"; done"#;
    let told = kubectl(&["-n", namespace, "exec", pod, "--", "sh", "-c", script])?;
    let mut found = Vec::new();
    for line in told.lines() {
        let mut parts = line.split(' ');
        let (Some(path), Some(mode)) = (parts.next(), parts.next()) else {
            bail!("{told}")
        };
        let contents = data_encoding::BASE64.decode(parts.next().unwrap_or_default().as_bytes())?;
        found.push((path.to_owned(), u32::from_str_radix(mode, 8)?, contents));
    }
    found.sort();
    Ok(found)
}

/// The text of one file, as the pod reads it.
pub(crate) fn read(namespace: &str, pod: &str, path: &str) -> Result<String> {
    kubectl(&["-n", namespace, "exec", pod, "--", "cat", path])
}

/// A class with these objects, the ServiceAccount of the same name that may have them.
pub(crate) fn class(namespace: &str, name: &str, objects: &str, allowed: &[&str]) -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": namespace, "name": name, "annotations": {"cce.io/dew-resource": json!(allowed).to_string()}},
        }),
        json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"provider": "cce", "parameters": {"objects": objects}},
        }),
    ]
}

/// A pod that waits, under the ServiceAccount of the first class; each class is a volume, the first
/// at `/mnt/secrets`, the others at `/mnt/CLASS`.
pub(crate) fn pod(namespace: &str, name: &str, classes: &[&str]) -> Value {
    let mount = |(index, class): (usize, &&str)| {
        let path = if index == 0 {
            "/mnt/secrets".to_owned()
        } else {
            format!("/mnt/{class}")
        };
        json!({"name": format!("v{index}"), "mountPath": path, "readOnly": true})
    };
    let volume = |(index, class): (usize, &&str)| {
        json!({"name": format!("v{index}"), "csi": {
            "driver": "secrets-store.csi.k8s.io", "readOnly": true,
            "volumeAttributes": {"secretProviderClass": class},
        }})
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "serviceAccountName": classes[0],
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "busybox:1.36", "imagePullPolicy": "Never",
                "command": ["sleep", "1000000"],
                "volumeMounts": classes.iter().enumerate().map(mount).collect::<Vec<_>>(),
            }],
            "volumes": classes.iter().enumerate().map(volume).collect::<Vec<_>>(),
        },
    })
}

/// A folder of the repository.
pub(crate) fn tree(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
