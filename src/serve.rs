//! The provider as a process: puts the parts together, runs them, drains them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::clock::{Clock, Jitter};
use crate::cloud::{self, Cloud, Dial, Env, Region};
use crate::kube::{Accounts, Classes, Events};
use crate::observe::admin::{self, Admin};
use crate::observe::metrics::Metrics;
use crate::observe::{Latch, Readiness};
use crate::proto::csi_driver_provider_server::CsiDriverProviderServer;
use crate::provider::Provider;
use crate::provider::authorize::{AllowListMode, Authorizer};
use crate::provider::resolve::Resolver;
use crate::rotation::{self, With};
use crate::socket;
use crate::store::{Store, StoreFile};

/// How long mounts in flight may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// How often what belonged to pods that are gone is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);
/// Largest message that is read; the steps behind have tighter limits and tell them better.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// What the process is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the sockets.
    pub socket_dir: PathBuf,
    /// Names under which SecretProviderClasses find this provider: one socket each.
    pub provider_names: Vec<String>,
    /// Region of SecretProviderClasses that name none.
    pub region: Option<Region>,
    /// Project of that region; looked up by IAM where none is given.
    pub project: Option<String>,
    /// How old `latest` may be in a volume that is mounted: `rotation_poll_interval`, or less where
    /// the demo says so.
    pub interval: Duration,
    /// For how long what was fetched may stand in while the cloud cannot be asked.
    pub stale_limit: Duration,
    /// Folder on a tmpfs in which that is kept over a restart; it ends with the process if `None`.
    pub store_dir: Option<PathBuf>,
    /// Whether ServiceAccounts' lists decide.
    pub allow_list: AllowListMode,
    /// How to reach the cloud.
    pub cloud: cloud::Config,
    /// How changes are found and delivered; without it, or without Kubernetes, kubelet's looking after
    /// volumes is all that brings new versions.
    pub rotation: Option<rotation::Config>,
    /// Where `/livez`, `/readyz` and `/metrics` are; nowhere if `None`.
    pub admin_address: Option<SocketAddr>,
}

/// What comes from outside, so that tests decide it.
#[derive(Clone)]
pub struct Outside {
    /// Environment variables.
    pub env: Env,
    /// The date.
    pub clock: Clock,
    /// Randomness.
    pub jitter: Jitter,
    /// Connections to the cloud.
    pub dial: Dial,
    /// The API server, if there is one.
    pub kube: Option<kube::Client>,
}

/// A provider that runs. It has to be stopped with [`Running::stop`]; a drop cancels it.
#[derive(Debug)]
pub struct Running {
    /// The sockets that drivers connect to.
    pub sockets: Vec<PathBuf>,
    /// Where the admin pages are.
    pub admin_address: Option<SocketAddr>,
    /// The families that `/metrics` prints.
    pub metrics: Arc<Metrics>,
    /// What is still awaited.
    pub readiness: Readiness,
    /// What answers on the sockets.
    pub provider: Provider,
    store: Store,
    stop: CancellationToken,
    _background: tokio_util::sync::DropGuard,
    tasks: TaskTracker,
}

/// Starts everything. When this returns, the sockets accept.
///
/// # Errors
/// What is wrong with the configuration, or with a folder or address.
pub async fn start(config: Config, outside: Outside) -> Result<Running> {
    let metrics = Metrics::new();
    let readiness = Readiness::default();
    let starting = readiness.latch("the provider's socket");
    let stop = CancellationToken::new();
    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    let Outside {
        env,
        clock,
        jitter,
        dial,
        kube,
    } = outside;

    let cloud = cloud::Config {
        home: config.region.clone(),
        ..config.cloud
    };
    let file = (config.store_dir.as_deref())
        .map(|folder| StoreFile::open(folder, clock.clone()))
        .transpose()?;
    let cloud = Cloud::with_dial(
        cloud,
        &env,
        clock.clone(),
        jitter.clone(),
        metrics.cloud.clone(),
        dial,
    )?;
    let store = Store::new(cloud.clone(), &metrics, config.stale_limit, file);
    let resolver = Resolver::new(&cloud, &env, config.region, config.project)?;
    let client = kube.clone();
    let kube = kube.map(|client| watch_kube(client, &readiness, &background, clock.clone()));
    let (kube, events) = match kube {
        Some((classes, accounts, events)) => (Some((classes, accounts)), Some(events)),
        None => (None, None),
    };
    let accounts = kube.as_ref().map(|(_, accounts)| accounts.clone());
    let classes = kube.as_ref().map(|(classes, _)| classes.clone());
    let provider = Provider::new(
        Authorizer::new(config.allow_list, kube),
        resolver,
        store.clone(),
        config.interval,
        events,
        stop.clone(),
        Arc::clone(&metrics),
    );

    // All sockets first: what cannot be bound should stop the start, not half of it.
    let mut sockets = Vec::new();
    let mut bound = Vec::new();
    for name in &config.provider_names {
        let path = config.socket_dir.join(format!("{name}.sock"));
        bound.push(socket::bind(&path)?);
        sockets.push(path);
    }
    let Some(first) = sockets.first().cloned() else {
        bail!("no provider name is given")
    };
    for listener in bound {
        let service = CsiDriverProviderServer::new(provider.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(listener.incoming(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = server.await {
                warn!(%error, "a socket's server ended");
            }
        });
    }

    let admin_address = match config.admin_address {
        Some(address) => {
            let admin = Admin {
                metrics: Arc::clone(&metrics),
                readiness: readiness.clone(),
                socket: first,
            };
            Some(serve_admin(address, admin, background.clone()).await?)
        }
        None => None,
    };
    if let (Some(rotation), Some(client), Some(classes)) = (config.rotation, client, classes) {
        let with = With {
            client,
            classes,
            cloud,
            provider: provider.clone(),
            provider_names: config.provider_names,
            interval: config.interval,
            clock,
            jitter,
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(rotation::run(rotation, with, stop.clone()));
    }
    let swept = provider.clone();
    spawn_until(&background, async move {
        let mut ticks = interval(SWEEP_EVERY);
        loop {
            ticks.tick().await;
            swept.sweep();
            if let Some(accounts) = &accounts {
                accounts.sweep();
            }
        }
    });
    spawn_until(&background, store.clone().save_changes());
    drop(starting);
    for socket in &sockets {
        info!(socket = %socket.display(), interval_seconds = config.interval.as_secs(), allow_list = %config.allow_list, "ready for the driver");
    }
    let _background = background.drop_guard();
    Ok(Running {
        sockets,
        admin_address,
        metrics,
        readiness,
        provider,
        store,
        stop,
        _background,
        tasks,
    })
}

impl Running {
    /// Stops accepting, lets mounts in flight end, for at most 20 s.
    pub async fn stop(self) {
        let _stopping: Latch = self.readiness.latch("the end: the process is stopping");
        self.stop.cancel();
        self.tasks.close();
        info!("stopping: no new mounts, those in flight may end");
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            warn!("mounts were still in flight after {DRAIN:?}; kubelet repeats them");
        }
        self.store.close().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn watch_kube(
    client: kube::Client,
    readiness: &Readiness,
    background: &CancellationToken,
    clock: Clock,
) -> (Classes, Accounts, Events) {
    let (classes, watch) = Classes::watch(client.clone());
    spawn_until(background, watch);
    let latch = readiness.latch("the API server: first list of SecretProviderClasses");
    let awaited = classes.clone();
    spawn_until(background, async move {
        awaited.ready().await;
        drop(latch);
    });
    (
        classes,
        Accounts::new(client.clone()),
        Events::new(client, clock),
    )
}

async fn serve_admin(
    address: SocketAddr,
    admin: Admin,
    stop: CancellationToken,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--admin-address {address} cannot be bound"))?;
    let address = listener.local_addr()?;
    spawn_until(&stop, async move {
        // axum's accept loop has no end of its own.
        let _ = axum::serve(listener, admin::router(admin)).await;
    });
    Ok(address)
}

/// Runs a task that ends with the process or the `Running`.
fn spawn_until(
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<Option<()>> {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(work).await })
}
