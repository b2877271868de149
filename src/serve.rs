//! The process of `dew-provider serve`: assembles the parts, runs them, drains them.
//!
//! Each process is a node; the elected one also runs the controller.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tracing::{info, warn};

use crate::cache::{SecretCache, SnapshotFile};
use crate::class::resolver::Resolver;
use crate::cloud::{Cloud, CloudConfig, Dial, Region};
use crate::controller::{self, ControllerConfig, ControllerDependencies};
use crate::kube::AllowListMode;
use crate::kube::{Classes, Events, LeaseWatch, ServiceAccounts};
use crate::node::admin::{self, AdminPages};
use crate::node::delivery::{self, DeliveryConfig, DeliveryDependencies};
use crate::node::mount::Pipeline;
use crate::node::mount::authorize::Authorizer;
use crate::node::mount::large::hold_room;

use crate::node::mount::kubelet_root::KubeletRoot;
use crate::node::mount::service::MountService;
use crate::node::readiness::{Latch, Readiness};
use crate::node::socket::{self, BodyGate};
use crate::node::volumes::Volumes;
use crate::policy::PolicyWatch;
use crate::proto::csi_driver_provider_server::CsiDriverProviderServer;
use crate::telemetry::metrics::Metrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;

/// How long in-flight mounts may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often data of pods that no longer exist is dropped.
const SWEEP_PERIOD: Duration = Duration::from_secs(10 * 60);
/// Largest gRPC message. The steps of a Mount have lower limits with better errors.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Largest headers of a gRPC request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// Requests of one connection in progress; the driver has one for each volume that it mounts.
const MAX_STREAMS: u32 = 128;
/// How much of a body may arrive before it is read, in bytes. A connection has room for this much of each of its
/// requests, so that those that wait for their turn do not stop the one that is read.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The configuration of the process.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Directory of the sockets.
    pub socket_dir: PathBuf,
    /// The names by which classes refer to this provider; one socket each.
    pub provider_names: Vec<String>,
    /// kubelet's root directory, below which volumes must be; not checked if `None`.
    pub kubelet_root: Option<KubeletRoot>,
    /// Region of classes that set none.
    pub region: Option<Region>,
    /// Project of that region; looked up in IAM if `None`.
    pub project: Option<String>,
    /// How old `latest` may be in a mounted volume: `rotation_poll_interval`, or less in the demo.
    pub interval: Duration,
    /// How long cached versions may be served while the cloud is unreachable.
    pub stale_limit: Duration,
    /// Directory on a tmpfs for the snapshot of the cache; without it, cached versions do not survive a
    /// restart.
    pub store_dir: Option<PathBuf>,
    /// Whether ServiceAccounts must list the secrets.
    pub allow_list: AllowListMode,
    /// The operator's policy; without it, everything is allowed that the ServiceAccounts list.
    pub policy: Option<PathBuf>,
    /// How to reach the cloud.
    pub cloud: CloudConfig,
    /// How changes are found and delivered. Without it, or without Kubernetes, new versions arrive only when
    /// kubelet remounts volumes.
    pub rotation: Option<RotationConfig>,
    /// Address of `/livez`, `/readyz` and `/metrics`, if any.
    pub admin_address: Option<SocketAddr>,
}

impl ServeConfig {
    /// The program's defaults, for the first provider name alone, without rotation: for tests and the demo.
    #[cfg(any(test, feature = "sim"))]
    pub fn emulated(socket_dir: PathBuf, cloud: CloudConfig) -> Self {
        Self {
            socket_dir,
            provider_names: vec!["cce".to_owned()],
            kubelet_root: None,
            region: None,
            project: None,
            interval: Duration::from_secs(120),
            stale_limit: Duration::from_secs(24 * 60 * 60),
            store_dir: None,
            allow_list: AllowListMode::Required,
            policy: None,
            cloud,
            rotation: None,
            admin_address: Some(([127, 0, 0, 1], 0).into()),
        }
    }
}

/// The configuration of rotation.
#[derive(Clone, Debug)]
pub struct RotationConfig {
    /// Polls of the leader per second.
    pub qps: NonZeroU32,
    /// Minimum time over which nodes spread the fetch of a version.
    pub spread: Duration,
    /// Name of this node; without it, volumes are left to kubelet.
    pub node_name: Option<String>,
    /// Namespace of the Lease.
    pub namespace: String,
    /// The driver's CSI socket; without it, volumes are left to kubelet.
    pub driver_socket: Option<PathBuf>,
}

impl RotationConfig {
    /// The program's defaults on a node, without a driver: for tests and the demo.
    #[cfg(any(test, feature = "sim"))]
    pub fn emulated(node_name: &str) -> Self {
        Self {
            qps: NonZeroU32::MIN.saturating_add(4),
            spread: Duration::from_secs(5),
            node_name: Some(node_name.to_owned()),
            namespace: "kube-system".to_owned(),
            driver_socket: None,
        }
    }
}

/// What is injected, so that tests can control it.
#[derive(Clone)]
pub struct Dependencies {
    /// Environment variables.
    pub env: Env,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub jitter: Jitter,
    /// Connections to the cloud.
    pub dial: Dial,
    /// The API server, if there is one.
    pub kube: Option<kube::Client>,
}

/// A running provider. Stop it with [`ServerHandle::stop`]; dropping it cancels it.
#[derive(Debug)]
pub struct ServerHandle {
    /// The sockets to which drivers connect.
    pub sockets: Vec<PathBuf>,
    /// The address of the admin pages.
    pub admin_address: Option<SocketAddr>,
    /// The metric families.
    pub metrics: Arc<Metrics>,
    /// What readiness waits for.
    pub readiness: Readiness,
    /// The service behind the sockets.
    pub service: MountService,
    cache: SecretCache,
    stop: CancellationToken,
    _background: tokio_util::sync::DropGuard,
    tasks: TaskTracker,
}

/// Starts everything. When this returns, the sockets accept connections.
///
/// # Errors
/// If the configuration, a directory or an address cannot be used.
pub async fn start(config: ServeConfig, dependencies: Dependencies) -> Result<ServerHandle> {
    let admin = match config.admin_address {
        Some(address) => Some(bind_admin(address).await?),
        None => None,
    };
    start_with(config, dependencies, admin)
}

/// Not async, so that the future of [`start`], which callers poll on their stack, stays small.
fn start_with(
    config: ServeConfig,
    dependencies: Dependencies,
    admin: Option<TcpListener>,
) -> Result<ServerHandle> {
    let metrics = Metrics::new();
    let readiness = Readiness::default();
    let starting = readiness.latch("the provider's socket");
    let stop = CancellationToken::new();
    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    let Dependencies {
        env,
        clock,
        jitter,
        dial,
        kube,
    } = dependencies;

    let policy = match &config.policy {
        Some(path) => {
            let (policy, reload) = PolicyWatch::open(path, metrics.policy.clone())?;
            spawn_until(&background, reload);
            policy
        }
        None => PolicyWatch::unrestricted(),
    };
    let cloud_config = CloudConfig {
        home: config.region.clone(),
        ..config.cloud
    };
    let snapshot = (config.store_dir.as_deref())
        .map(|dir| SnapshotFile::open(dir, clock.clone()))
        .transpose()?;
    let cloud = Cloud::with_dial(
        cloud_config,
        &env,
        clock.clone(),
        jitter.clone(),
        metrics.cloud.clone(),
        dial,
    )?;
    let cache = SecretCache::new(cloud.clone(), &metrics, config.stale_limit, snapshot);
    let resolver = Resolver::new(&cloud, &env, config.region, config.project)?;
    let resolver = Arc::new(resolver);
    let volumes = Arc::new(Volumes::default());
    let kube = kube.map(|client| Kubernetes {
        classes: watch_classes(
            client.clone(),
            &config.provider_names,
            &readiness,
            &background,
        ),
        service_accounts: ServiceAccounts::new(client.clone()),
        events: Events::new(client.clone(), clock.clone(), jitter.clone(), &env),
        client,
    });

    let authorizer = Authorizer::new(
        config.allow_list,
        kube.as_ref()
            .map(|kube| (kube.classes.clone(), kube.service_accounts.clone())),
        policy.clone(),
        Arc::clone(&resolver),
    );
    let pipeline = Pipeline::new(
        config.kubelet_root,
        authorizer,
        Arc::clone(&resolver),
        cache.clone(),
        Arc::clone(&volumes),
        config.interval,
    );
    let service = MountService::new(
        pipeline,
        kube.as_ref().map(|kube| kube.events.clone()),
        stop.clone(),
        Arc::clone(&metrics),
    );
    spawn_until(&background, service.revocation().run());
    let sockets = serve_sockets(
        &config.socket_dir,
        &config.provider_names,
        &service,
        &stop,
        &tasks,
    )?;
    let admin_address = match admin {
        Some(listener) => {
            let address = listener.local_addr()?;
            let pages = AdminPages {
                metrics: Arc::clone(&metrics),
                readiness: readiness.clone(),
                socket: sockets[0].clone(),
            };
            spawn_until(&background, admin::serve(listener, pages));
            Some(address)
        }
        None => None,
    };

    let service_accounts = kube.as_ref().map(|kube| kube.service_accounts.clone());
    if let (Some(rotation), Some(kube)) = (config.rotation, kube) {
        let lease = LeaseWatch::new(kube.client.clone(), &rotation.namespace);
        spawn_until(&stop, lease.clone().run());
        let deletions = watch::Sender::new(0);
        let controller = ControllerDependencies {
            client: kube.client.clone(),
            classes: kube.classes.clone(),
            lease: lease.clone(),
            cloud,
            resolver,
            policy: policy.clone(),
            events: kube.events.clone(),
            provider_names: config.provider_names.clone(),
            interval: config.interval,
            deletions: deletions.subscribe(),
            clock: clock.clone(),
            jitter: jitter.clone(),
            metrics: metrics.rotation.clone(),
        };
        let delivery = DeliveryDependencies {
            client: kube.client,
            classes: kube.classes,
            lease,
            cache: cache.clone(),
            volumes: Arc::clone(&volumes),
            policy,
            events: kube.events,
            provider_names: config.provider_names,
            interval: config.interval,
            deletions,
            clock,
            jitter,
            metrics: metrics.rotation.clone(),
        };
        let identity = rotation.node_name.as_deref();
        let controller_config = ControllerConfig {
            qps: rotation.qps,
            allow_list: config.allow_list,
            identity: identity.unwrap_or(env!("CARGO_PKG_NAME")).to_owned(),
        };
        let delivery_config = DeliveryConfig {
            spread: rotation.spread,
            node_name: rotation.node_name,
            driver_socket: rotation.driver_socket,
        };
        delivery::start(delivery_config, delivery, stop.clone());
        tasks.spawn(controller::run(controller_config, controller, stop.clone()));
    }
    let swept = cache.clone();
    spawn_until(&background, async move {
        let mut ticks = interval(SWEEP_PERIOD);
        loop {
            ticks.tick().await;
            swept.sweep();
            volumes.sweep();
            if let Some(service_accounts) = &service_accounts {
                service_accounts.sweep();
            }
        }
    });
    spawn_until(&background, cache.clone().run_snapshots());
    drop(starting);
    for socket in &sockets {
        info!(socket = %socket.display(), interval_seconds = config.interval.as_secs(), allow_list = %config.allow_list, "ready for the driver");
    }
    let _background = background.drop_guard();
    Ok(ServerHandle {
        sockets,
        admin_address,
        metrics,
        readiness,
        service,
        cache,
        stop,
        _background,
        tasks,
    })
}

impl ServerHandle {
    /// Stops accepting mounts, and lets those in flight finish for at most 20 s.
    pub async fn stop(self) {
        let _stopping: Latch = self.readiness.latch("shutting down");
        self.stop.cancel();
        self.tasks.close();
        info!("shutting down: waiting for mounts in flight");
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            warn!("mounts were still in flight after {DRAIN:?}; kubelet will retry them");
        }
        self.cache.close().await;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The parts that need the API server.
struct Kubernetes {
    client: kube::Client,
    classes: Classes,
    service_accounts: ServiceAccounts,
    events: Events,
}

fn watch_classes(
    client: kube::Client,
    provider_names: &[String],
    readiness: &Readiness,
    background: &CancellationToken,
) -> Classes {
    let (classes, watch) = Classes::watch(client, provider_names);
    spawn_until(background, watch);
    let latch = readiness.latch("the first list of SecretProviderClasses from the API server");
    let awaited = classes.clone();
    spawn_until(background, async move {
        awaited.ready().await;
        drop(latch);
    });
    classes
}

/// Serves one socket per provider name.
fn serve_sockets(
    dir: &std::path::Path,
    provider_names: &[String],
    service: &MountService,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Vec<PathBuf>> {
    // Bind all sockets first: if one cannot be bound, none is served.
    let mut sockets = Vec::new();
    let mut listeners = Vec::new();
    for name in provider_names {
        let path = dir.join(format!("{name}.sock"));
        listeners.push(socket::bind(&path)?);
        sockets.push(path);
    }
    if sockets.is_empty() {
        bail!("no provider name is set")
    }
    let gate = BodyGate::default();
    for listener in listeners {
        let gate = gate.clone();
        let service = CsiDriverProviderServer::new(service.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(MAX_STREAMS * STREAM_WINDOW)
            .http2_max_header_list_size(MAX_HEADERS)
            .layer(MapRequestLayer::new(move |request| gate.guard(request)))
            .layer(MapResponseLayer::new(hold_room))
            .add_service(service)
            .serve_with_incoming_shutdown(listener.incoming(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = server.await {
                warn!(%error, "the server of a socket failed");
            }
        });
    }
    Ok(sockets)
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot bind --admin-address {address}"))
}

/// Runs a task that ends with `stop`.
fn spawn_until(stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(work).await });
}
