//! Runs kubectl, and builds the objects of the tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long to wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a program and returns its standard output, or an error with all its output.
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
    let output = child.wait_with_output()?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{program} {}: {out}{err}",
        arguments.join(" ")
    );
    Ok(out.into_owned())
}

pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments, "")
}

/// Creates or updates objects.
pub(crate) fn apply(objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    run("kubectl", &["apply", "-f", "-"], &list.to_string()).map(drop)
}

/// Repeats `attempt` until it succeeds.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("gave up waiting for {what}")));
            }
            Err(_) => std::thread::sleep(RETRY_INTERVAL),
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

/// Waits for an Event about the object whose message contains all of these texts.
pub(crate) fn wait_event(namespace: &str, pod: &str, texts: &[&str]) -> Result<()> {
    until(&format!("an Event of {pod} with {texts:?}"), || {
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
        let messages: Vec<&str> = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e["message"].as_str())
            .collect();
        ensure!(
            messages
                .iter()
                .any(|message| texts.iter().all(|text| message.contains(text))),
            "its Events: {messages:#?}"
        );
        Ok(())
    })
}

/// The files of the volume as a process of the pod reads them: path, mode and contents, sorted by path.
pub(crate) fn files(namespace: &str, pod: &str) -> Result<Vec<(String, u32, Vec<u8>)>> {
    let script = r#"cd /mnt/secrets && find -L . -path './..*' -prune -o -type f -print | while read -r f; do
        echo "${f#./} $(stat -L -c %a "$f") $(base64 -w0 <"$f")"; done"#;
    let output = kubectl(&["-n", namespace, "exec", pod, "--", "sh", "-c", script])?;
    let mut found = Vec::new();
    for line in output.lines() {
        let mut parts = line.split(' ');
        let (Some(path), Some(mode)) = (parts.next(), parts.next()) else {
            bail!("{output}")
        };
        let contents = data_encoding::BASE64.decode(parts.next().unwrap_or_default().as_bytes())?;
        found.push((path.to_owned(), u32::from_str_radix(mode, 8)?, contents));
    }
    found.sort();
    Ok(found)
}

/// The contents of a file, as a process of the pod reads it.
pub(crate) fn read(namespace: &str, pod: &str, path: &str) -> Result<String> {
    kubectl(&["-n", namespace, "exec", pod, "--", "cat", path])
}

/// A ServiceAccount that lists `allowed`, and a class of the same name with these objects.
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

/// A sleeping pod under the ServiceAccount of the first class. Each class is a volume: the first at
/// `/mnt/secrets`, the others at `/mnt/CLASS`.
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

/// The absolute form of a path in the repository.
pub(crate) fn tree(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
