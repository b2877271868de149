//! A node in one process: the provider on its socket and the CSI driver, with the cloud (emulator) and
//! an API server.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Method;
use dew_provider::cloud::{self, CloudConfig};
use dew_provider::kube::AllowListMode;
use dew_provider::policy::RELOAD_PERIOD;
use dew_provider::serve::{self, Dependencies, ServeConfig, ServerHandle};
use dew_provider::sim::csi_driver::{Driver, DriverConfig, PodVolume};
use dew_provider::sim::huawei::{self, DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY, Emulator};
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Status;

use super::api_server::ApiServer;
use super::http;
use super::owner::Owner;
use super::paused_clock::{PausedClock, drive};

/// `rotation_poll_interval` of the provider.
pub(crate) const INTERVAL: Duration = Duration::from_secs(120);

/// The settings of a node.
pub(crate) struct Setup {
    pub(crate) allow_list: AllowListMode,
    pub(crate) emulator: huawei::Config,
    /// Environment variables of the provider.
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) region: Option<&'static str>,
    pub(crate) project: Option<&'static str>,
    /// How far the provider's clock is ahead of the emulator's.
    pub(crate) skew: jiff::SignedDuration,
    /// How many calls per second the provider may make.
    pub(crate) qps: u32,
    pub(crate) driver_interval: Duration,
    pub(crate) stale_limit: Duration,
    pub(crate) store_dir: Option<PathBuf>,
    /// How the provider connects to the cloud; over TCP if `None`.
    pub(crate) dial: Option<cloud::Dial>,
    /// The provider's endpoint of CSMS, instead of the emulator's own.
    pub(crate) csms_endpoint: Option<String>,
    pub(crate) ca_bundle: Option<PathBuf>,
    /// The text of the policy file.
    pub(crate) policy: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            allow_list: AllowListMode::Required,
            emulator: huawei::Config::default(),
            env: vec![
                ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY.into()),
                ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY.into()),
            ],
            region: Some(DEMO_REGION),
            project: None,
            skew: jiff::SignedDuration::ZERO,
            qps: 1000,
            driver_interval: Duration::from_secs(1),
            stale_limit: Duration::from_secs(24 * 3600),
            store_dir: None,
            dial: None,
            csms_endpoint: None,
            ca_bundle: None,
            policy: None,
        }
    }
}

/// How the provider is started.
pub(crate) struct Launch {
    pub(crate) config: ServeConfig,
    pub(crate) dependencies: Dependencies,
}

/// The node. Time advances only inside its methods.
pub(crate) struct TestNode {
    pub(crate) emulator: Emulator,
    pub(crate) api: ApiServer,
    pub(crate) provider: ServerHandle,
    pub(crate) driver: Driver,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) launch: Launch,
    pub(crate) owner: Owner,
    started: Instant,
    _paused: PausedClock,
}

fn start_of_time() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

impl Launch {
    async fn start(&self) -> ServerHandle {
        let start = serve::start(self.config.clone(), self.dependencies.clone());
        let provider = drive(start).await.unwrap();
        drive(async {
            while !provider.readiness.awaited().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        provider
    }
}

impl TestNode {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let paused = PausedClock::new();
        let started = Instant::now();
        let clock = Clock::from_tokio(start_of_time());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, setup.emulator, clock.clone()).unwrap();
        let api = ApiServer::default();
        let folder = tempfile::tempdir().unwrap();
        let endpoints = CloudConfig {
            qps: setup.qps.try_into().unwrap(),
            burst: setup.qps.try_into().unwrap(),
            ..CloudConfig::emulated(&emulator.url())
        };
        let mut provider_endpoints = endpoints.clone();
        provider_endpoints.ca_bundle = setup.ca_bundle;
        if let Some(endpoint) = setup.csms_endpoint {
            provider_endpoints.csms_endpoint = Some(endpoint);
        }
        let policy = setup.policy.map(|text| {
            let path = folder.path().join("policy.yaml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let config = ServeConfig {
            policy,
            region: setup.region.map(|r| r.parse().unwrap()),
            project: setup.project.map(Into::into),
            interval: INTERVAL,
            stale_limit: setup.stale_limit,
            store_dir: setup.store_dir,
            allow_list: setup.allow_list,
            ..ServeConfig::emulated(folder.path().join("providers"), provider_endpoints)
        };
        let dependencies = Dependencies {
            env: Env::from_pairs(setup.env),
            clock: Clock::from_tokio(start_of_time() + setup.skew),
            jitter: Jitter::seeded(7),
            dial: setup.dial.unwrap_or_else(cloud::tcp),
            kube: Some(api.0.client()),
        };
        let launch = Launch {
            config,
            dependencies,
        };
        let provider = launch.start().await;
        let driver = DriverConfig {
            rotation_poll_interval: setup.driver_interval,
            ..DriverConfig::new(folder.path().join("providers"))
        };
        Self {
            driver: Driver::new(driver, clock.clone()),
            owner: Owner::new(endpoints, emulator.url(), clock),
            emulator,
            api,
            provider,
            folder,
            launch,
            started,
            _paused: paused,
        }
    }

    /// Stops the provider, runs `meanwhile`, and starts a new provider.
    pub(crate) async fn restart_provider(mut self, meanwhile: impl FnOnce(&mut Launch)) -> Self {
        drive(self.provider.stop()).await;
        meanwhile(&mut self.launch);
        self.provider = self.launch.start().await;
        self
    }

    /// Replaces the text of the policy file, and waits until the provider has read it.
    pub(crate) async fn set_policy(&self, text: &str) {
        let path = self.launch.config.policy.as_ref().unwrap();
        std::fs::write(path, text).unwrap();
        drive(tokio::time::sleep(2 * RELOAD_PERIOD)).await;
    }

    /// Advances time at once, without running tasks in between.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Applies a SecretProviderClass in `default`, both to the API server and to the driver.
    pub(crate) async fn apply(&self, name: &str, parameters: &[(&str, &str)]) {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        self.api.put_class("default", name, &parameters);
        self.driver.apply("default", name, "cce", parameters);
    }

    /// Applies a class with these `objects`, and a ServiceAccount of the same name that lists `allowed`.
    pub(crate) async fn apply_for(&self, name: &str, objects: &str, allowed: &[&str]) {
        self.apply(name, &[("objects", objects)]).await;
        let list = json!(allowed).to_string();
        self.api.put_account("default", name, Some(&list));
    }

    /// A pod with a volume of the class, under the ServiceAccount of the same name.
    pub(crate) fn pod(&self, class: &str, uid: &str) -> PodVolume {
        PodVolume {
            namespace: "default".into(),
            pod: format!("{class}-{uid}"),
            uid: uid.into(),
            service_account: class.into(),
            class: class.into(),
            attributes: BTreeMap::new(),
            secrets: None,
            target_path: self.folder.path().join("pods").join(uid).join("mount"),
        }
    }

    /// Mounts a volume, or mounts it again, as kubelet does.
    pub(crate) async fn publish(&self, pod: &PodVolume) -> Result<(), Status> {
        drive(self.driver.publish_as_kubelet(pod)).await
    }

    /// Sets the emulator's clock to this machine's, for clients that sign with the real date.
    pub(crate) async fn set_real_date(&self) {
        let ahead = Clock::system()
            .now()
            .duration_since(start_of_time() + self.started.elapsed());
        self.set_clock(ahead.as_secs()).await;
    }

    /// Sets the emulator's clock back to the test's.
    pub(crate) async fn set_own_date(&self) {
        self.set_clock(0).await;
    }

    async fn set_clock(&self, offset: i64) {
        let body = json!({ "offset_seconds": offset }).to_string();
        self.control(Method::PUT, "clock", &body).await;
    }

    /// The provider's `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.page("metrics").await.text()
    }

    /// How many Mounts have failed so far. The driver hides failures of remounts.
    pub(crate) async fn failed_mounts(&self) -> u64 {
        let metrics = self.metrics().await;
        let failed = metrics
            .lines()
            .filter(|line| line.starts_with("dew_provider_mounts_total{outcome=\"error\""));
        failed
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// A page of the provider's admin address.
    pub(crate) async fn page(&self, name: &str) -> http::Reply {
        let url = format!("http://{}/{name}", self.provider.admin_address.unwrap());
        drive(http::get(&url)).await
    }
}

impl std::ops::Deref for TestNode {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.owner
    }
}

/// The files of a volume as a pod sees them: path, mode and contents, sorted by path.
pub(crate) fn files(target: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![target.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let relative = path
                .strip_prefix(target)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if relative.starts_with("..") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                found.push((relative, mode, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The contents of a file in a pod's volume, which must exist.
pub(crate) fn read(pod: &PodVolume, path: &str) -> String {
    std::fs::read_to_string(pod.target_path.join(path)).unwrap()
}
