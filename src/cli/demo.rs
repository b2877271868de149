//! `dew-provider demo`: a Mount, a new version and a failing cloud, without a cluster.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::clock::{Clock, Jitter};
use crate::cloud::{self, AccessKeys, Caller, Cloud, Credentials, Env, NewSecret, SecretValue};
use crate::driver::{Driver, DriverConfig, PodVolume};
use crate::emulator::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use crate::lint::manifest::example_class;
use crate::observe::metrics::CloudMetrics;
use crate::observe::{self, LogFormat};
use crate::provider::authorize::AllowListMode;
use crate::serve::{self, Outside, Running};

/// The manifest that the demo mounts; users start from it too.
const EXAMPLE_FILE: &str = "manifests/examples/database-password.yaml";
const EXAMPLE_TEXT: &str = include_str!("../../manifests/examples/database-password.yaml");
const SECRET: &str = "shop-db";
/// Stands in for `rotation_poll_interval`, whose least is a minute.
const INTERVAL: Duration = Duration::from_secs(1);
/// As `--stale-limit`'s default.
const STALE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the stand-in for kubelet has volumes looked after; the real one takes 60 to 90 s.
const KUBELET: Duration = Duration::from_millis(200);
/// What any step may take before the demo says that it failed.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The parts, as they run.
struct Demo {
    emulator: Emulator,
    provider: Running,
    driver: Driver,
    cloud: Cloud,
    owner: Caller,
    pods: PathBuf,
}

impl Demo {
    async fn start(folder: &Path) -> Result<Self> {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let emulator = Emulator::start(listener, Config::default(), clock.clone())?;
        let providers = folder.join("providers");
        let qps = NonZeroU32::new(100).context("not zero")?;
        let endpoints = cloud::Config {
            csms_endpoint: Some(emulator.url()),
            iam_endpoint: Some(emulator.url()),
            metadata_endpoint: Some(emulator.url()),
            qps,
            burst: qps,
            ..cloud::Config::default()
        };
        let config = serve::Config {
            socket_dir: providers.clone(),
            provider_names: vec!["cce".to_owned()],
            region: Some(DEMO_REGION.parse()?),
            project: None,
            interval: INTERVAL,
            stale_limit: STALE_LIMIT,
            store_dir: None,
            allow_list: AllowListMode::Off,
            cloud: endpoints.clone(),
            admin_address: Some(([127, 0, 0, 1], 0).into()),
        };
        // The provider gets its keys as on an ECS node: from the agency, by the metadata service.
        let outside = Outside {
            env: Env::default(),
            clock: clock.clone(),
            jitter: Jitter::from_system(),
            kube: None,
        };
        let provider = serve::start(config, outside).await?;
        let driver = DriverConfig {
            rotation_poll_interval: INTERVAL,
            ..DriverConfig::new(providers)
        };
        let class = example_class(EXAMPLE_TEXT).context("the example has no class")?;
        let driver = Driver::new(driver, clock.clone());
        driver.apply(&class.namespace, &class.name, "cce", class.parameters);
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let metrics = CloudMetrics::default();
        let (env, jitter) = (Env::default(), Jitter::from_system());
        Ok(Self {
            cloud: Cloud::new(endpoints, &env, clock, jitter, metrics)?,
            owner: Caller {
                region: DEMO_REGION.parse()?,
                project: Some(DEMO_PROJECT.to_owned()),
                credentials: Credentials::fixed(keys, "the demo's owner of secrets"),
            },
            emulator,
            provider,
            driver,
            pods: folder.join("pods"),
        })
    }

    async fn show(&self, keep: bool) -> Result<()> {
        let socket = self.provider.sockets.first().context("no socket")?;
        say(&format!(
            "An emulated Huawei Cloud (CSMS, IAM, metadata service) listens on {}. It checks every signature.\n\
             The provider listens on {}, with keys from the emulated ECS agency.\n",
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

        let begun = Instant::now();
        self.put(r#"{"username":"app","password":"second-pass"}"#)
            .await?;
        say("3. Put version v2 with another password. The pod is left alone.")?;
        self.wait_for(&first, "second-pass").await?;
        say(&format!(
            "   {:.1} s later its volume holds the new one (here the interval is 1 s, in a cluster 1m or more):\n{}",
            begun.elapsed().as_secs_f64(),
            tree(&first.target_path)?
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
            "4. CSMS now fails: 429, 429, 502. A second pod starts all the same, in {:.1} s:\n   \
             the provider asked again after each failure, and CSMS answered {answers:?}.\n{}",
            took.as_secs_f64(),
            tree(&second.target_path)?
        ))?;

        self.emulator.add_faults(&format!(
            r#"{{"match": {match_reads}, "times": 1, "fault": {{"status": 403, "code": "CSMS.0302", "message": "No permission"}}}}"#
        ))?;
        sleep(INTERVAL).await;
        let refused = self.driver.publish_as_kubelet(&self.pod("shop-3")).await;
        let refused = refused
            .err()
            .context("a pod without permission was served")?;
        say(&format!(
            "5. A \"no\" is final. What kubelet shows of a third pod, whose identity lost its right:\n   {}\n",
            refused.message()
        ))?;

        // The right is there again.
        self.mount(&self.pod("shop-3")).await?;
        self.emulator.add_faults(&format!(
            r#"{{"match": {match_reads}, "fault": {{"reset": true}}}}"#
        ))?;
        sleep(INTERVAL).await;
        let fourth = self.pod("shop-4");
        let took = self.mount(&fourth).await?;
        say(&format!(
            "6. CSMS is gone: every connection is reset. A fourth pod starts, in {:.1} s, with what was fetched\n   \
             last; a metric, the log and an Event of the pod tell that it could not be confirmed.\n{}",
            took.as_secs_f64(),
            tree(&fourth.target_path)?
        ))?;
        self.emulator.clear_faults();
        if keep {
            self.keep(&first).await
        } else {
            say("All of it was real but the cloud, the driver and kubelet.")
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
             cat {volume}/password\n  \
             curl -X POST {url}/_emulator/faults -d '{{\"times\": 3, \"fault\": {{\"status\": 502}}}}'\n  \
             curl http://{admin}/metrics"
        ))?;
        loop {
            // What fails is masked by the driver; the metrics tell it.
            let _ = self.driver.publish_as_kubelet(pod).await;
            sleep(KUBELET).await;
        }
    }

    async fn create(&self, value: &str) -> Result<()> {
        let new = NewSecret {
            name: SECRET.to_owned(),
            kms_key_id: None,
            description: Some("database login of the shop".to_owned()),
            value: SecretValue::Text(value.to_owned().into()),
        };
        let deadline = Instant::now() + PATIENCE;
        self.cloud.create_secret(&self.owner, new, deadline).await?;
        Ok(())
    }

    async fn put(&self, value: &str) -> Result<()> {
        let value = SecretValue::Text(value.to_owned().into());
        let deadline = Instant::now() + PATIENCE;
        self.cloud
            .create_secret_version(&self.owner, SECRET, value, &[], deadline)
            .await?;
        Ok(())
    }

    fn pod(&self, name: &str) -> PodVolume {
        PodVolume {
            namespace: "default".to_owned(),
            pod: name.to_owned(),
            uid: name.to_owned(),
            service_account: "shop".to_owned(),
            class: "shop-db".to_owned(),
            target_path: self.pods.join(name).join("mnt/secrets"),
            ..PodVolume::default()
        }
    }

    async fn mount(&self, pod: &PodVolume) -> Result<Duration> {
        let begun = Instant::now();
        self.driver
            .publish_as_kubelet(pod)
            .await
            .map_err(|status| anyhow::anyhow!("{}", status.message()))?;
        Ok(begun.elapsed())
    }

    /// Looks after the volume as kubelet does, until the password is this one.
    async fn wait_for(&self, pod: &PodVolume, password: &str) -> Result<()> {
        let path = pod.target_path.join("password");
        let end = Instant::now() + PATIENCE;
        while std::fs::read_to_string(&path)? != password {
            ensure!(Instant::now() < end, "the new version did not arrive");
            sleep(KUBELET).await;
            self.mount(pod).await?;
        }
        Ok(())
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
