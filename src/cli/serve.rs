//! `dew-provider serve`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::clock::{Clock, Jitter};
use crate::cloud::{self, Env, Region};
use crate::interval::RotationPollInterval;
use crate::observe::{self, LogFormat};
use crate::provider::authorize::AllowListMode;
use crate::rotation;
use crate::serve::{self, Config, Outside};

const EXAMPLE: &str = "\
Example, without a cluster, against the emulator of `dew-provider emulate`:
  HUAWEICLOUD_SDK_AK=… HUAWEICLOUD_SDK_SK=… dew-provider serve \\
    --socket-dir /tmp/providers --service-account-allow-list off --region cn-north-4 \\
    --csms-endpoint http://127.0.0.1:7780 --iam-endpoint http://127.0.0.1:7780";

/// Flags of `serve`. Each is an environment variable too.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct ServeArgs {
    /// Folder in which the driver looks for providers' sockets
    #[arg(
        long,
        env = "DEW_SOCKET_DIR",
        default_value = "/var/run/secrets-store-csi-providers",
        value_name = "DIR"
    )]
    pub socket_dir: PathBuf,

    /// Names under which SecretProviderClasses find this provider, parted by commas
    #[arg(long = "provider-name", env = "DEW_PROVIDER_NAME", default_value = "cce", value_delimiter = ',', value_parser = provider_name, value_name = "NAME")]
    pub provider_names: Vec<String>,

    /// Region of SecretProviderClasses that name none, such as cn-north-4
    #[arg(long, env = "DEW_REGION")]
    pub region: Option<Region>,

    /// Project id of that region; without it IAM is asked once
    #[arg(long, env = "DEW_PROJECT_ID", value_name = "ID")]
    pub project_id: Option<String>,

    /// How old the latest version may be in pods that run: 1m to 1440m
    #[arg(
        long,
        env = "DEW_ROTATION_POLL_INTERVAL",
        default_value_t,
        value_name = "MINUTES"
    )]
    pub rotation_poll_interval: RotationPollInterval,

    /// For how long pods may get what was fetched before while CSMS cannot be asked, such as 24h or
    /// 30m; 0 for never
    #[arg(
        long,
        env = "DEW_STALE_LIMIT",
        default_value = "24h",
        value_parser = stale_limit,
        value_name = "TIME"
    )]
    pub stale_limit: Duration,

    /// Folder on a tmpfs in which what was fetched is kept, so that it can stand in after a restart
    /// too; without it, it is in memory only
    #[arg(long, env = "DEW_STORE_DIR", value_name = "DIR")]
    pub store_dir: Option<PathBuf>,

    /// Questions about versions per second that the leader asks for all nodes
    #[arg(long, env = "DEW_ROTATION_QPS", default_value = "5", value_name = "N")]
    pub rotation_qps: NonZeroU32,

    /// Over what time nodes spread the fetch of a version that all of them need, such as 5s; more where
    /// the account's limit asks for it
    #[arg(
        long,
        env = "DEW_ROTATION_SPREAD",
        default_value = "5s",
        value_parser = spread,
        value_name = "TIME"
    )]
    pub rotation_spread: Duration,

    /// CSI socket of the driver, by which changes get into pods at once; empty, or where it is not
    /// there, kubelet brings them within 60 to 90 s
    #[arg(
        long,
        env = "DEW_DRIVER_SOCKET",
        default_value = "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
        value_name = "PATH"
    )]
    pub driver_socket: String,

    /// Name of this node; without it changes wait for kubelet
    #[arg(long, env = "DEW_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Namespace of the Lease by which one provider of the cluster leads
    #[arg(
        long,
        env = "DEW_NAMESPACE",
        default_value = "kube-system",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Whether the ServiceAccount's annotation cce.io/dew-resource must list the secrets
    #[arg(
        long,
        env = "DEW_SERVICE_ACCOUNT_ALLOW_LIST",
        value_enum,
        default_value_t,
        value_name = "MODE"
    )]
    pub service_account_allow_list: AllowListMode,

    /// Kubeconfig file; without it the pod's own ServiceAccount is used
    #[arg(long, env = "DEW_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// How to reach Huawei Cloud
    #[command(flatten)]
    pub cloud: CloudArgs,

    /// Address of /livez, /readyz and /metrics
    #[arg(
        long,
        env = "DEW_ADMIN_ADDRESS",
        default_value = "0.0.0.0:8989",
        value_name = "IP:PORT"
    )]
    pub admin_address: SocketAddr,

    /// Whether log lines are for people or JSON
    #[arg(
        long,
        env = "DEW_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// Lowest level that is logged; by module too, such as info,dew_provider::cloud=debug
    #[arg(
        long,
        env = "DEW_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
}

/// Flags of every command that calls Huawei Cloud.
#[derive(Args, Clone, Debug)]
pub struct CloudArgs {
    /// URL of CSMS instead of the region's; {region} in it is filled in
    #[arg(long, env = "DEW_CSMS_ENDPOINT", value_name = "URL")]
    pub csms_endpoint: Option<String>,

    /// URL of IAM instead of the region's; {region} in it is filled in
    #[arg(long, env = "DEW_IAM_ENDPOINT", value_name = "URL")]
    pub iam_endpoint: Option<String>,

    /// URL of the ECS metadata service instead of http://169.254.169.254
    #[arg(long, env = "DEW_METADATA_ENDPOINT", value_name = "URL")]
    pub metadata_endpoint: Option<String>,

    /// PEM file of the only certificate authorities to trust, instead of the system's
    #[arg(long, env = "DEW_CA_BUNDLE", value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,

    /// CSMS calls per second; the account's limit is 20 for all nodes together
    #[arg(long, env = "DEW_CSMS_QPS", default_value = "5", value_name = "N")]
    pub csms_qps: NonZeroU32,

    /// CSMS calls that may be made at once after a quiet time
    #[arg(long, env = "DEW_CSMS_BURST", default_value = "20", value_name = "N")]
    pub csms_burst: NonZeroU32,
}

impl From<CloudArgs> for cloud::Config {
    fn from(args: CloudArgs) -> Self {
        Self {
            csms_endpoint: args.csms_endpoint,
            iam_endpoint: args.iam_endpoint,
            metadata_endpoint: args.metadata_endpoint,
            home: None,
            ca_bundle: args.ca_bundle,
            qps: args.csms_qps,
            burst: args.csms_burst,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the provider from starting.
pub async fn run(args: ServeArgs) -> Result<()> {
    observe::init_logs(args.log_format, &args.log_level)
        .map_err(|error| anyhow!("--log-level {:?}: {error}", args.log_level))?;
    refuse_core_dumps();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outside = Outside {
        env: Env::from_process(),
        clock: Clock::system(),
        jitter: Jitter::from_system(),
        dial: cloud::tcp(),
        kube: kube_client(&args).await?,
    };
    let config = Config {
        socket_dir: args.socket_dir,
        provider_names: args.provider_names,
        region: args.region,
        project: args.project_id,
        interval: args.rotation_poll_interval.into(),
        stale_limit: args.stale_limit,
        store_dir: args.store_dir,
        allow_list: args.service_account_allow_list,
        cloud: args.cloud.into(),
        rotation: Some(rotation::Config {
            qps: args.rotation_qps,
            spread: args.rotation_spread,
            node_name: args.node_name.filter(|name| !name.is_empty()),
            namespace: args.namespace,
            driver_socket: Some(args.driver_socket)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        }),
        admin_address: Some(args.admin_address),
    };
    let running = serve::start(config, outside).await?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    running.stop().await;
    Ok(())
}

async fn kube_client(args: &ServeArgs) -> Result<Option<kube::Client>> {
    let mode = args.service_account_allow_list;
    match (crate::kube::config(args.kubeconfig.as_deref()).await, mode) {
        (Ok(config), _) => kube::Client::try_from(config)
            .map(Some)
            .context("the Kubernetes client cannot be made"),
        (Err(why), AllowListMode::Off) if args.kubeconfig.is_none() => {
            warn!(
                %why,
                "without Kubernetes, volumeAttributes of pods can override region, project and credentials"
            );
            Ok(None)
        }
        (Err(why), _) => Err(anyhow!(
            "--service-account-allow-list {mode} needs Kubernetes, and there is no connection: {why}. \
             Run in a pod, give --kubeconfig, or set --service-account-allow-list off"
        )),
    }
}

fn stale_limit(text: &str) -> Result<Duration, String> {
    let units = [('h', 60 * 60), ('m', 60)];
    time(text, units, 7 * 24 * 60 * 60).ok_or_else(|| {
        "write hours or minutes up to 168h, such as 24h or 30m, or 0 for never".to_owned()
    })
}

fn spread(text: &str) -> Result<Duration, String> {
    time(text, [('m', 60), ('s', 1)], 60 * 60).ok_or_else(|| {
        "write seconds or minutes up to 60m, such as 5s or 1m, or 0 for none".to_owned()
    })
}

/// A whole number with its unit, up to so many seconds, or a bare 0.
fn time(text: &str, units: [(char, u64); 2], most: u64) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (digits, unit) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| plain)?;
    let seconds = count.checked_mul(unit).filter(|seconds| *seconds <= most)?;
    Some(Duration::from_secs(seconds))
}

/// A core file would hold every secret.
fn refuse_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warn!(%error, "core files could not be limited to nothing");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "the process could not be made undumpable");
    }
}

/// The driver's own rule for names (v1.6.0, provider_client.go).
fn provider_name(name: &str) -> Result<String, String> {
    let fits = (1..=30).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 30 letters, digits, _ or -".into())
    }
}
