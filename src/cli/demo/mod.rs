//! `dew-provider demo`: a Mount, a new version, an edit and a failing cloud, without a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::driver::PodVolume;
use crate::emulator::{DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY};
use crate::observe::{self, LogFormat};

mod world;
use world::{DRIVER_INTERVAL, Demo, EXAMPLE_FILE, INTERVAL, SECRET};

/// How often the stand-in for kubelet has volumes looked after, at the end of the demo.
const KUBELET: Duration = Duration::from_secs(60);

const AFTER_HELP: &str = "\
Example:
  dew-provider demo --keep
leaves the emulator and the provider running and prints how to put a new version yourself.";

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct DemoArgs {
    /// Leave it running at the end, and print how to talk to it
    #[arg(long, env = "DEW_DEMO_KEEP")]
    keep: bool,
    /// Folder for the socket and the volumes; a temporary one without it
    #[arg(long, env = "DEW_DEMO_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the demo, and with `--keep` goes on until SIGTERM or SIGINT.
///
/// # Errors
/// A step that did not do what it should.
pub async fn run(args: DemoArgs) -> Result<()> {
    observe::init_logs(LogFormat::Text, "error").map_err(|e| anyhow::anyhow!("logs: {e}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let folder = match (&args.dir, &temporary) {
        (Some(dir), _) => std::path::absolute(dir)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => unreachable!("one of the two is there"),
    };
    let demo = Demo::start(&folder).await?;
    let shown = tokio::select! {
        shown = demo.show(args.keep) => shown,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    demo.provider.stop().await;
    demo.emulator.shutdown().await;
    if temporary.is_none() {
        say(&format!(
            "The volumes' files stay in {}.",
            demo.pods.display()
        ))?;
    }
    shown
}

impl Demo {
    async fn show(&self, keep: bool) -> Result<()> {
        let socket = self.provider.sockets.first().context("no socket")?;
        say(&format!(
            "An emulated Huawei Cloud (CSMS, IAM, metadata service) listens on {}. It checks every signature.\n\
             The provider listens on {}, with keys from the emulated ECS agency; it leads.\n",
            self.emulator.url(),
            socket.display()
        ))?;

        self.create(r#"{"username":"app","password":"first-pass"}"#)
            .await?;
        say(&format!(
            "1. Created the secret {SECRET:?} in CSMS: JSON with a username and a password, version v1."
        ))?;
        let first = self.pod("shop-1");
        let took = self.mount(&first).await?;
        say(&format!(
            "2. A pod starts. The driver calls Mount for the SecretProviderClass of {EXAMPLE_FILE};\n   \
             it took {} ms. The pod's volume:\n{}",
            took.as_millis(),
            tree(&first.target_path)?
        ))?;

        self.wait_for_leader().await?;
        let begun = Instant::now();
        self.put(r#"{"username":"app","password":"second-pass"}"#)
            .await?;
        say("3. Put version v2 with another password. Nobody looks after the pod.")?;
        self.wait_for(&first, "second-pass").await?;
        say(&format!(
            "   {:.1} s later its volume holds the new one (here the interval is {} s, in a cluster 1m or more): the\n   \
             leader asked for the versions, wrote a SecretRevision, and the node had the driver fill the volume anew.\n{}\n{}",
            begun.elapsed().as_secs_f64(),
            INTERVAL.as_secs(),
            tree(&first.target_path)?,
            self.told()
        ))?;

        // The driver leaves a volume alone that changed within the last second.
        sleep(DRIVER_INTERVAL).await;
        let begun = Instant::now();
        self.edit("objectVersion: \"latest\"", "objectVersion: v1")?;
        self.wait_for(&first, "first-pass").await?;
        let pinned = begun.elapsed();
        sleep(DRIVER_INTERVAL).await;
        let begun = Instant::now();
        self.edit("", "")?;
        self.wait_for(&first, "second-pass").await?;
        say(&format!(
            "4. Edited the SecretProviderClass: pinned to v1. The running pod has v1 after {} ms, and v2 again {} ms after\n   \
             the edit was taken back.\n",
            pinned.as_millis(),
            begun.elapsed().as_millis()
        ))?;

        sleep(INTERVAL).await;
        let match_reads = r#"{"operation": "ShowSecretVersion"}"#;
        self.emulator.add_faults(&format!(
            r#"[{{"match": {match_reads}, "times": 2, "fault": {{"status": 429}}}},
                {{"match": {match_reads}, "times": 1, "fault": {{"status": 502}}}}]"#
        ))?;
        self.emulator.clear_calls();
        let second = self.pod("shop-2");
        let took = self.mount(&second).await?;
        let answers = self.emulator.answers("ShowSecretVersion");
        ensure!(
            answers == [429, 429, 502, 200],
            "the cloud answered {answers:?}"
        );
        say(&format!(
            "5. CSMS now fails: 429, 429, 502. A second pod starts all the same, in {:.1} s:\n   \
             the provider asked again after each failure, and CSMS answered {answers:?}.\n{}",
            took.as_secs_f64(),
            tree(&second.target_path)?
        ))?;

        self.emulator.add_faults(&format!(
            r#"{{"match": {match_reads}, "times": 1, "fault": {{"status": 403, "code": "CSMS.0302", "message": "No permission"}}}}"#
        ))?;
        sleep(INTERVAL).await;
        let refused = self.csi.publish_as_kubelet(&self.pod("shop-3")).await;
        let refused = refused
            .err()
            .context("a pod without permission was served")?;
        say(&format!(
            "6. A \"no\" is final. What kubelet shows of a third pod, whose identity lost its right:\n   {}\n",
            refused.message()
        ))?;

        // The right is there again.
        self.mount(&self.pod("shop-3")).await?;
        self.emulator.add_faults(r#"{"fault": {"reset": true}}"#)?;
        sleep(INTERVAL).await;
        let fourth = self.pod("shop-4");
        let took = self.mount(&fourth).await?;
        say(&format!(
            "7. CSMS is gone: every connection is reset. A fourth pod starts, in {:.1} s, with what was fetched\n   \
             last; a metric, the log and an Event of the pod tell that it could not be confirmed.\n{}",
            took.as_secs_f64(),
            tree(&fourth.target_path)?
        ))?;
        self.emulator.clear_faults();
        if keep {
            self.keep(&first).await
        } else {
            say("All of it was real but the cloud, the API server, the driver and kubelet.")
        }
    }

    /// Goes on as a node does, and tells what can be tried.
    async fn keep(&self, pod: &PodVolume) -> Result<()> {
        let url = self.emulator.url();
        let volume = pod.target_path.display();
        let admin = self
            .provider
            .admin_address
            .context("no address of /metrics")?;
        say(&format!(
            "It goes on until Ctrl-C. In another terminal:\n  \
             export HUAWEICLOUD_SDK_AK={DEMO_ACCESS_KEY} HUAWEICLOUD_SDK_SK={DEMO_SECRET_KEY}\n  \
             export DEW_REGION={DEMO_REGION} DEW_CSMS_ENDPOINT={url} DEW_IAM_ENDPOINT={url}\n  \
             dew-provider secret get {SECRET}\n  \
             printf '{{\"username\":\"app\",\"password\":\"mine\"}}' | dew-provider secret put {SECRET}\n  \
             cat {volume}/password      # {} s later\n  \
             curl -X POST {url}/_emulator/faults -d '{{\"times\": 3, \"fault\": {{\"status\": 502}}}}'\n  \
             curl http://{admin}/metrics",
            INTERVAL.as_secs()
        ))?;
        loop {
            // What fails is masked by the driver; the metrics tell it.
            let _ = self.csi.publish_as_kubelet(pod).await;
            sleep(KUBELET).await;
        }
    }
}

/// The files of a volume with their modes. The values are the demo's own, so they are shown.
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
            continue; // the driver's own
        }
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
        let value = std::fs::read_to_string(&path)?;
        text += &format!("     {mode:04o}  {name:<9} {value}\n");
    }
    Ok(text)
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
