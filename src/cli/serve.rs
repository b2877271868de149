//! `dew-provider serve`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::duration;
use crate::cloud::{CloudConfig, Region, tcp};
use crate::kube::AllowListMode;
use crate::node::hardening;
use crate::node::mount::kubelet_root::KubeletRoot;
use crate::serve::{self, Dependencies, RotationConfig, ServeConfig};
use crate::telemetry::{self, LogFormat};
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;
use crate::util::poll_interval::RotationPollInterval;

const EXAMPLE: &str = "\
Example, without a cluster, against a local emulator of Huawei Cloud:
  HUAWEICLOUD_SDK_AK=… HUAWEICLOUD_SDK_SK=… dew-provider serve \\
    --socket-dir /tmp/providers --service-account-allow-list off --region cn-north-4 \\
    --csms-endpoint http://127.0.0.1:7780 --iam-endpoint http://127.0.0.1:7780";

/// Flags of `serve`. Each can also be set by an environment variable.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct ServeArgs {
    /// Directory in which the driver looks for the sockets of providers
    #[arg(
        long,
        env = "DEW_SOCKET_DIR",
        default_value = "/var/run/secrets-store-csi-providers",
        value_name = "DIR"
    )]
    pub socket_dir: PathBuf,

    /// Names by which SecretProviderClasses refer to this provider, comma-separated; one socket per name
    #[arg(long = "provider-name", env = "DEW_PROVIDER_NAME", default_value = "cce", value_delimiter = ',', value_parser = provider_name, value_name = "NAME")]
    pub provider_names: Vec<String>,

    /// Root directory of kubelet on this node, such as /var/lib/kubelet: a volume that is not below it fails,
    /// because its pod would get an empty directory; not checked if empty
    #[arg(
        long,
        env = "DEW_KUBELET_ROOT",
        default_value = "",
        hide_default_value = true,
        value_name = "DIR"
    )]
    pub kubelet_root: String,

    /// Region for SecretProviderClasses that set none, such as cn-north-4
    #[arg(long, env = "DEW_REGION")]
    pub region: Option<Region>,

    /// Project ID of that region; looked up in IAM if not set
    #[arg(long, env = "DEW_PROJECT_ID", value_name = "ID")]
    pub project_id: Option<String>,

    /// Maximum age of the latest version in running pods: 1m to 1440m
    #[arg(
        long,
        env = "DEW_ROTATION_POLL_INTERVAL",
        default_value_t,
        value_name = "MINUTES"
    )]
    pub rotation_poll_interval: RotationPollInterval,

    /// How long cached values may be served while CSMS is unreachable, such as 24h or 30m; 0 for never
    #[arg(
        long,
        env = "DEW_STALE_LIMIT",
        default_value = "24h",
        value_parser = duration::stale_limit,
        value_name = "TIME"
    )]
    pub stale_limit: Duration,

    /// Directory on a tmpfs for cached values, so that they survive a restart of the provider; in memory
    /// only if not set
    #[arg(long, env = "DEW_STORE_DIR", value_name = "DIR")]
    pub store_dir: Option<PathBuf>,

    /// Polls of secret versions per second, made by the leader for the whole cluster
    #[arg(long, env = "DEW_ROTATION_QPS", default_value = "5", value_parser = count, value_name = "N")]
    pub rotation_qps: NonZeroU32,

    /// Minimum time over which nodes spread the fetch of a new version, such as 5s; longer if the account's
    /// rate limit requires it
    #[arg(
        long,
        env = "DEW_ROTATION_SPREAD",
        default_value = "5s",
        value_parser = duration::spread,
        value_name = "TIME"
    )]
    pub rotation_spread: Duration,

    /// CSI socket of the driver, through which changes reach running pods at once; if empty or missing,
    /// kubelet delivers them within 60 to 90 s
    #[arg(
        long,
        env = "DEW_DRIVER_SOCKET",
        default_value = "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
        value_name = "PATH"
    )]
    pub driver_socket: String,

    /// Name of this node; without it, kubelet delivers changes
    #[arg(long, env = "DEW_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Namespace of the Lease with which the providers elect a leader
    #[arg(
        long,
        env = "DEW_NAMESPACE",
        default_value = "kube-system",
        value_name = "NAME"
    )]
    pub namespace: String,

    /// Whether the annotation cce.io/dew-resource of the ServiceAccount must list the secrets
    #[arg(
        long,
        env = "DEW_SERVICE_ACCOUNT_ALLOW_LIST",
        value_enum,
        default_value_t,
        value_name = "MODE"
    )]
    pub service_account_allow_list: AllowListMode,

    /// File with the operator's policy: which namespaces may use which secrets, regions and projects; read
    /// again when it changes. Without it, everything is allowed that the ServiceAccounts list
    #[arg(long, env = "DEW_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Kubeconfig file; the pod's own ServiceAccount if not set
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
        value_parser = address,
        value_name = "IP:PORT"
    )]
    pub admin_address: SocketAddr,

    /// Format of log lines
    #[arg(
        long,
        env = "DEW_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// Log level, also per module, such as info,dew_provider::cloud=debug
    #[arg(
        long,
        env = "DEW_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
}

/// Flags of all commands that call Huawei Cloud.
#[derive(Args, Clone, Debug)]
pub struct CloudArgs {
    /// URL of CSMS and KMS instead of the region's; {region} stands for the region
    #[arg(long, env = "DEW_CSMS_ENDPOINT", value_name = "URL")]
    pub csms_endpoint: Option<String>,

    /// URL of KMS instead of that of CSMS; {region} stands for the region
    #[arg(long, env = "DEW_KMS_ENDPOINT", value_name = "URL")]
    pub kms_endpoint: Option<String>,

    /// URL of IAM instead of the region's; {region} stands for the region
    #[arg(long, env = "DEW_IAM_ENDPOINT", value_name = "URL")]
    pub iam_endpoint: Option<String>,

    /// URL of the ECS metadata service instead of http://169.254.169.254
    #[arg(long, env = "DEW_METADATA_ENDPOINT", value_name = "URL")]
    pub metadata_endpoint: Option<String>,

    /// PEM file with the CA certificates to trust instead of the system's
    #[arg(long, env = "DEW_CA_BUNDLE", value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,

    /// CSMS and KMS calls per second, retries included; an account's limit is 20 for all nodes together
    #[arg(long, env = "DEW_CSMS_QPS", default_value = "5", value_parser = count, value_name = "N")]
    pub csms_qps: NonZeroU32,

    /// CSMS and KMS calls that can be made at once after an idle period
    #[arg(long, env = "DEW_CSMS_BURST", default_value = "20", value_parser = count, value_name = "N")]
    pub csms_burst: NonZeroU32,
}

impl From<CloudArgs> for CloudConfig {
    fn from(args: CloudArgs) -> Self {
        Self {
            csms_endpoint: args.csms_endpoint,
            kms_endpoint: args.kms_endpoint,
            iam_endpoint: args.iam_endpoint,
            metadata_endpoint: args.metadata_endpoint,
            home: None,
            project_setting: CloudConfig::default().project_setting,
            ca_bundle: args.ca_bundle,
            qps: args.csms_qps,
            burst: args.csms_burst,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If the provider cannot start.
pub async fn run(args: ServeArgs) -> Result<()> {
    telemetry::init_logs(args.log_format, &args.log_level)
        .map_err(|error| anyhow!("--log-level {:?}: {error}", args.log_level))?;
    let kubelet_root = match args.kubelet_root.as_str() {
        "" => None,
        path => Some(
            path.parse::<KubeletRoot>()
                .map_err(|error| anyhow!("--kubelet-root {path:?}: {error}"))?,
        ),
    };
    hardening::refuse_core_dumps();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let dependencies = Dependencies {
        env: Env::from_process(),
        clock: Clock::system(),
        jitter: Jitter::from_system(),
        dial: tcp(),
        kube: kube_client(&args).await?,
    };
    let config = ServeConfig {
        socket_dir: args.socket_dir,
        provider_names: args.provider_names,
        kubelet_root,
        region: args.region,
        project: args.project_id,
        interval: args.rotation_poll_interval.into(),
        stale_limit: args.stale_limit,
        store_dir: args.store_dir,
        allow_list: args.service_account_allow_list,
        policy: args.policy,
        cloud: args.cloud.into(),
        rotation: Some(RotationConfig {
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
    let running = serve::start(config, dependencies).await?;
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
            .context("cannot create the Kubernetes client"),
        (Err(why), AllowListMode::Off) if args.kubeconfig.is_none() => {
            warn!(
                %why,
                "not connected to Kubernetes: pods can override region, project and credentials in volumeAttributes"
            );
            Ok(None)
        }
        (Err(why), AllowListMode::Off) => Err(anyhow!("--kubeconfig cannot be used: {why}")),
        (Err(why), _) => Err(anyhow!(
            "--service-account-allow-list {mode} requires Kubernetes, and there is no connection: {why}. \
             Run in a pod, set --kubeconfig, or set --service-account-allow-list off"
        )),
    }
}

/// The driver's rule for names. Source: driver v1.6.0, provider_client.go.
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

/// A number of calls.
fn count(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| "use a whole number from 1 to 4294967295".to_owned())
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "use an IP address and a port, such as 127.0.0.1:8989 or [::1]:8989".to_owned()
    })
}
