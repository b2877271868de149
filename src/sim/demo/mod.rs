//! `dew-provider demo`: shows a mount, a new version, an edited class and a failing cloud, without
//! a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::sim::csi_driver::PodVolume;
use crate::sim::huawei::{DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY};
use crate::telemetry::{self, LogFormat};
use crate::util::output::print;

mod stage;
use stage::{DRIVER_INTERVAL, Demo, EXAMPLE_FILE, INTERVAL, SECRET};

/// How often the simulated kubelet publishes the volume again after the demo, with `--keep`.
const KUBELET_SYNC_PERIOD: Duration = Duration::from_secs(60);
/// Longer than the provider remembers that it was denied a secret.
const REJECTION_REMEMBERED_FOR: Duration = Duration::from_secs(6);

/// Runs the demo. With `--keep`, it then keeps running until SIGTERM or SIGINT.
///
/// # Errors
/// If a component does not start, or a step fails or shows an unexpected result.
pub async fn run(keep: bool, dir: Option<PathBuf>) -> Result<()> {
    telemetry::init_logs(LogFormat::Text, "error")
        .map_err(|e| anyhow::anyhow!("cannot initialize logging: {e}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let temporary = match &dir {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let folder = match (&dir, &temporary) {
        (Some(dir), _) => std::path::absolute(dir)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => unreachable!("either --dir or the temporary folder is set"),
    };
    let demo = Demo::start(&folder).await?;
    let result = tokio::select! {
        result = show(&demo, keep) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    demo.provider.stop().await;
    demo.emulator.shutdown().await;
    if temporary.is_none() {
        say(&format!(
            "The files of the volumes remain in {}.",
            demo.pods.display()
        ))?;
    }
    result
}

async fn show(demo: &Demo, keep: bool) -> Result<()> {
    let socket = demo.provider.sockets.first().context("no socket")?;
    say(&format!(
        "An emulated Huawei Cloud (CSMS, IAM, metadata service) listens on {}. It verifies every signature.\n\
         The provider listens on {}. It uses keys of the emulated ECS agency and becomes the leader.\n",
        demo.emulator.url(),
        socket.display()
    ))?;

    demo.create(r#"{"username":"app","password":"first-pass"}"#)
        .await?;
    say(&format!(
        "1. Created the secret {SECRET:?} in CSMS: version v1, JSON with a username and a password."
    ))?;
    let first = demo.pod("shop-1");
    let took = demo.mount(&first).await?;
    say(&format!(
        "2. A pod starts. The driver calls Mount for the SecretProviderClass in {EXAMPLE_FILE};\n   \
         the mount took {} ms. The pod's volume:\n{}",
        took.as_millis(),
        tree(&first.target_path)?
    ))?;

    demo.wait_for_leader().await?;
    let started = Instant::now();
    demo.put(r#"{"username":"app","password":"second-pass"}"#)
        .await?;
    say("3. Stored version v2 with a new password. The pod is not restarted.")?;
    demo.wait_for(&first, "second-pass").await?;
    say(&format!(
        "   {:.1} s later, its volume contains the new password (the poll interval is {} s here, at least 1m in a cluster).\n   \
         The leader polled CSMS and wrote a SecretRevision; the node then made the driver update the volume.\n{}\n{}",
        started.elapsed().as_secs_f64(),
        INTERVAL.as_secs(),
        tree(&first.target_path)?,
        demo.status_report()
    ))?;

    // The driver skips a volume that changed within the last second.
    sleep(DRIVER_INTERVAL).await;
    let started = Instant::now();
    demo.edit_class("objectVersion: \"latest\"", "objectVersion: v1")?;
    demo.wait_for(&first, "first-pass").await?;
    let pinned_after = started.elapsed();
    sleep(DRIVER_INTERVAL).await;
    let started = Instant::now();
    demo.edit_class("", "")?;
    demo.wait_for(&first, "second-pass").await?;
    say(&format!(
        "4. Edited the SecretProviderClass to pin v1. The running pod has v1 after {} ms, and v2 again {} ms after\n   \
         the edit was reverted.\n",
        pinned_after.as_millis(),
        started.elapsed().as_millis()
    ))?;

    sleep(INTERVAL).await;
    let match_reads = r#"{"operation": "ShowSecretVersion"}"#;
    demo.emulator.add_faults(&format!(
        r#"[{{"match": {match_reads}, "times": 2, "fault": {{"status": 429}}}},
            {{"match": {match_reads}, "times": 1, "fault": {{"status": 502}}}}]"#
    ))?;
    demo.emulator.clear_calls();
    let second = demo.pod("shop-2");
    let took = demo.mount(&second).await?;
    let answers = demo.emulator.answers("ShowSecretVersion");
    ensure!(
        answers == [429, 429, 502, 200],
        "expected the responses 429, 429, 502, 200 from CSMS, got {answers:?}"
    );
    say(&format!(
        "5. CSMS now fails three times: 429, 429, 502. A second pod still starts, in {:.1} s: the provider\n   \
         retried after each failure. Responses of CSMS: {answers:?}.\n{}",
        took.as_secs_f64(),
        tree(&second.target_path)?
    ))?;

    demo.emulator.add_faults(&format!(
        r#"{{"match": {match_reads}, "times": 1, "fault": {{"status": 403, "code": "CSMS.0302", "message": "No permission"}}}}"#
    ))?;
    sleep(INTERVAL).await;
    let result = demo.csi.publish_as_kubelet(&demo.pod("shop-3")).await;
    let error = result
        .err()
        .context("a mount without permission succeeded")?;
    say(&format!(
        "6. A rejection is not retried. The identity of a third pod lost its permission; kubelet reports:\n   {}\n",
        error.message()
    ))?;

    // The permission is back. kubelet retries after longer than the provider remembers the rejection.
    sleep(REJECTION_REMEMBERED_FOR).await;
    demo.mount(&demo.pod("shop-3")).await?;
    demo.emulator.add_faults(r#"{"fault": {"reset": true}}"#)?;
    sleep(INTERVAL).await;
    let fourth = demo.pod("shop-4");
    let took = demo.mount(&fourth).await?;
    say(&format!(
        "7. CSMS is unreachable: every connection is reset. A fourth pod still starts, in {:.1} s, with the cached\n   \
         version. A metric, the log and an Event for the pod report that the version could not be confirmed.\n{}",
        took.as_secs_f64(),
        tree(&fourth.target_path)?
    ))?;
    demo.emulator.clear_faults();
    if keep {
        run_until_stopped(demo, &first).await
    } else {
        say("Only the provider is real; everything around it is simulated.")
    }
}

/// Prints commands to try, then publishes the volume periodically, as kubelet does.
async fn run_until_stopped(demo: &Demo, pod: &PodVolume) -> Result<()> {
    let url = demo.emulator.url();
    let volume = pod.target_path.display();
    let admin = demo
        .provider
        .admin_address
        .context("the provider has no admin address")?;
    let program = std::env::current_exe()?;
    let program = program.display();
    say(&format!(
        "Running until Ctrl-C. In another terminal:\n  \
         export HUAWEICLOUD_SDK_AK={DEMO_ACCESS_KEY} HUAWEICLOUD_SDK_SK={DEMO_SECRET_KEY}\n  \
         export DEW_REGION={DEMO_REGION} DEW_CSMS_ENDPOINT={url} DEW_IAM_ENDPOINT={url}\n  \
         {program} secret get {SECRET}\n  \
         printf '{{\"username\":\"app\",\"password\":\"mine\"}}' | {program} secret put {SECRET}\n  \
         cat {volume}/password      # after {} s\n  \
         curl -X POST {url}/_emulator/faults -d '{{\"times\": 3, \"fault\": {{\"status\": 502}}}}'\n  \
         curl http://{admin}/metrics",
        INTERVAL.as_secs()
    ))?;
    loop {
        // The driver ignores failures of a remount; the metrics show them.
        let _ = demo.csi.publish_as_kubelet(pod).await;
        sleep(KUBELET_SYNC_PERIOD).await;
    }
}

/// Lists the files of a volume with their modes and values, which are not confidential in the demo.
fn tree(volume: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut names: Vec<PathBuf> = std::fs::read_dir(volume)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    names.sort();
    let mut text = format!("   {}\n", volume.display());
    for path in names {
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.starts_with("..") {
            continue; // internal to the driver
        }
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
        let value = std::fs::read_to_string(&path)?;
        text += &format!("     {mode:04o}  {name:<9} {value}\n");
    }
    Ok(text)
}

fn say(text: &str) -> Result<()> {
    Ok(print(format!("{text}\n").as_bytes())?)
}
