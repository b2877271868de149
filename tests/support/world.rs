//! A node and its surroundings in one process: the cloud (emulator), an API server, the provider on
//! its socket, and the driver.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Method;
use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{self, Env};
use dew_provider::driver::{Driver, DriverConfig, PodVolume};
use dew_provider::emulator::{self, DEMO_ACCESS_KEY, DEMO_REGION, DEMO_SECRET_KEY, Emulator};
use dew_provider::provider::authorize::AllowListMode;
use dew_provider::serve::{self, Outside, Running};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Status;

use super::api_server::ApiServer;
use super::http;
use super::owner::Owner;
use super::still::{Still, hurry};

/// `rotation_poll_interval` of the worlds.
pub(crate) const INTERVAL: Duration = Duration::from_secs(120);

/// What may differ between worlds.
pub(crate) struct Setup {
    pub(crate) allow_list: AllowListMode,
    pub(crate) emulator: emulator::Config,
    /// Environment variables of the provider.
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) region: Option<&'static str>,
    pub(crate) project: Option<&'static str>,
    /// The provider's clock, ahead of the emulator's.
    pub(crate) skew: jiff::SignedDuration,
    /// What the provider calls a second.
    pub(crate) qps: u32,
    pub(crate) driver_interval: Duration,
    pub(crate) stale_limit: Duration,
    pub(crate) store_dir: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            allow_list: AllowListMode::Required,
            emulator: emulator::Config::default(),
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
        }
    }
}

/// How the provider is started.
pub(crate) struct Launch {
    pub(crate) config: serve::Config,
    pub(crate) outside: Outside,
}

/// The world. Time stands still in it, except within its own methods.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) api: ApiServer,
    pub(crate) provider: Running,
    pub(crate) driver: Driver,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) launch: Launch,
    pub(crate) owner: Owner,
    began: Instant,
    _still: Still,
}

fn start_of_time() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

impl Launch {
    async fn start(&self) -> Running {
        let start = serve::start(self.config.clone(), self.outside.clone());
        let provider = hurry(start).await.unwrap();
        hurry(async {
            while !provider.readiness.awaited().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        provider
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let still = Still::new();
        let began = Instant::now();
        let clock = Clock::from_tokio(start_of_time());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, setup.emulator, clock.clone()).unwrap();
        let api = ApiServer::default();
        let folder = tempfile::tempdir().unwrap();
        let endpoints = cloud::Config {
            csms_endpoint: Some(emulator.url()),
            iam_endpoint: Some(emulator.url()),
            metadata_endpoint: Some(emulator.url()),
            home: None,
            ca_bundle: None,
            qps: setup.qps.try_into().unwrap(),
            burst: setup.qps.try_into().unwrap(),
        };
        let config = serve::Config {
            socket_dir: folder.path().join("providers"),
            provider_names: vec!["cce".into()],
            region: setup.region.map(|r| r.parse().unwrap()),
            project: setup.project.map(Into::into),
            interval: INTERVAL,
            stale_limit: setup.stale_limit,
            store_dir: setup.store_dir,
            allow_list: setup.allow_list,
            cloud: endpoints.clone(),
            rotation: None,
            admin_address: Some("127.0.0.1:0".parse().unwrap()),
        };
        let outside = Outside {
            env: Env::from_pairs(setup.env),
            clock: Clock::from_tokio(start_of_time() + setup.skew),
            jitter: Jitter::seeded(7),
            dial: cloud::tcp(),
            kube: Some(api.0.client()),
        };
        let launch = Launch { config, outside };
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
            began,
            _still: still,
        }
    }

    /// The same with another provider, started when the last one is gone and `meanwhile` is done.
    pub(crate) async fn restart_provider(mut self, meanwhile: impl FnOnce(&mut Launch)) -> Self {
        hurry(self.provider.stop()).await;
        meanwhile(&mut self.launch);
        self.provider = self.launch.start().await;
        self
    }

    /// Lets this much time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Applies a SecretProviderClass in `default`, to the API server and the driver alike.
    pub(crate) async fn apply(&self, name: &str, parameters: &[(&str, &str)]) {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        self.api.put_class("default", name, &parameters);
        self.driver.apply("default", name, "cce", parameters);
    }

    /// Applies a class with these `objects`, and a ServiceAccount of the same name with this list.
    pub(crate) async fn apply_for(&self, name: &str, objects: &str, allowed: &[&str]) {
        self.apply(name, &[("objects", objects)]).await;
        let list = json!(allowed).to_string();
        self.api.put_account("default", name, Some(&list));
    }

    /// A pod with a volume of the class of the same name, under the ServiceAccount of that name.
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

    /// Mounts, or mounts again, as kubelet does.
    pub(crate) async fn publish(&self, pod: &PodVolume) -> Result<(), Status> {
        hurry(self.driver.publish_as_kubelet(pod)).await
    }

    /// Sets the emulator's clock to this machine's date, for clients that sign with that.
    pub(crate) async fn set_real_date(&self) {
        let ahead = Clock::system()
            .now()
            .duration_since(start_of_time() + self.began.elapsed());
        self.set_clock(ahead.as_secs()).await;
    }

    /// Sets it back.
    pub(crate) async fn set_own_date(&self) {
        self.set_clock(0).await;
    }

    async fn set_clock(&self, offset: i64) {
        let body = json!({ "offset_seconds": offset }).to_string();
        self.control(Method::PUT, "clock", &body).await;
    }

    /// The page of the provider's metrics.
    pub(crate) async fn metrics(&self) -> String {
        self.page("metrics").await.text()
    }

    pub(crate) async fn page(&self, name: &str) -> http::Reply {
        let url = format!("http://{}/{name}", self.provider.admin_address.unwrap());
        hurry(http::get(&url)).await
    }
}

impl std::ops::Deref for World {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.owner
    }
}

/// What a pod sees in its volume: path, mode and contents of each file, in order of paths.
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

/// The text of one file.
pub(crate) fn read(pod: &PodVolume, path: &str) -> String {
    std::fs::read_to_string(pod.target_path.join(path)).unwrap()
}
