//! A stand-in for the Secrets Store CSI Driver v1.6.0, for the demo and the tests.
//!
//! It calls a provider as the real driver does and keeps a volume's files as it does. What is
//! different: a volume is a plain folder unless [`Mounts`] mount it, SecretProviderClasses and pod statuses
//! are kept here instead of in Kubernetes, and the folder's time of change is kept here too, so that
//! a test's clock decides what is young.
//!
//! Source of the behaviour: kubernetes-sigs/secrets-store-csi-driver v1.6.0, `pkg/secrets-store`
//! (nodeserver.go, provider_client.go) and `pkg/util/fileutil`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tonic::{Code, Status};

use crate::clock::Clock;
use crate::proto::{MountRequest, MountResponse};

mod client;
pub mod csi;
mod mounts;
mod writer;

pub use mounts::Mounts;
use mounts::PlainFolders;

/// What the real driver is told by flags.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Folder of providers' sockets.
    pub providers_dir: PathBuf,
    /// `--enable-secret-rotation`.
    pub rotation: bool,
    /// `--rotation-poll-interval`: a volume younger than this is left alone.
    pub rotation_poll_interval: Duration,
    /// `--max-call-recv-msg-size`.
    pub max_recv_bytes: usize,
}

impl DriverConfig {
    /// The driver's defaults, with rotation on.
    pub fn new(providers_dir: impl Into<PathBuf>) -> Self {
        Self {
            providers_dir: providers_dir.into(),
            rotation: true,
            rotation_poll_interval: Duration::from_secs(120),
            max_recv_bytes: 4 * 1024 * 1024,
        }
    }
}

/// A pod, as kubelet tells the driver of it, with one volume.
#[derive(Clone, Debug, Default)]
pub struct PodVolume {
    /// Namespace of the pod and of its SecretProviderClass.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// ServiceAccount of the pod.
    pub service_account: String,
    /// SecretProviderClass of the volume.
    pub class: String,
    /// Other `volumeAttributes` that the pod gives.
    pub attributes: BTreeMap<String, String>,
    /// Data of the Secret that `nodePublishSecretRef` names.
    pub secrets: Option<BTreeMap<String, String>>,
    /// Folder that becomes the volume.
    pub target_path: PathBuf,
}

/// What the driver records of a volume, as a SecretProviderClassPodStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// Whether the volume is mounted.
    pub mounted: bool,
    /// Versions by object id.
    pub objects: BTreeMap<String, String>,
}

/// A SecretProviderClass, as far as the driver reads it.
#[derive(Clone, Debug)]
struct Class {
    provider: String,
    parameters: BTreeMap<String, String>,
}

struct Volume {
    mounted: bool,
    /// The folder's time of change.
    modified: Timestamp,
    status: PodStatus,
}

#[derive(Default)]
struct State {
    classes: HashMap<(String, String), Class>,
    volumes: HashMap<PathBuf, Volume>,
}

/// The stand-in.
pub struct Driver {
    config: DriverConfig,
    clock: Clock,
    clients: client::Clients,
    mounts: Box<dyn Mounts>,
    state: Mutex<State>,
}

impl Driver {
    /// A driver that knows no class and no volume.
    pub fn new(config: DriverConfig, clock: Clock) -> Self {
        Self::with_mounts(config, clock, Box::new(PlainFolders))
    }

    /// The same, with volumes that are mounted.
    pub fn with_mounts(config: DriverConfig, clock: Clock, mounts: Box<dyn Mounts>) -> Self {
        let clients = client::Clients::new(config.providers_dir.clone(), config.max_recv_bytes);
        Self {
            config,
            clock,
            clients,
            mounts,
            state: Mutex::default(),
        }
    }

    /// Creates or replaces a SecretProviderClass.
    pub fn apply(
        &self,
        namespace: &str,
        name: &str,
        provider: &str,
        parameters: BTreeMap<String, String>,
    ) {
        let class = Class {
            provider: provider.to_owned(),
            parameters,
        };
        self.state()
            .classes
            .insert((namespace.to_owned(), name.to_owned()), class);
    }

    /// The record of a volume.
    pub fn status(&self, target_path: &Path) -> Option<PodStatus> {
        self.state()
            .volumes
            .get(target_path)
            .map(|volume| volume.status.clone())
    }

    /// Publishes as kubelet does: two minutes at most; after a final error the folder is removed,
    /// after another it is kept, because kubelet cannot know what became of the mount.
    ///
    /// # Errors
    /// The driver's.
    pub async fn publish_as_kubelet(&self, pod: &PodVolume) -> Result<(), Status> {
        const DEADLINE: Duration = Duration::from_secs(120);
        let late = || Status::deadline_exceeded("context deadline exceeded");
        let published =
            tokio::time::timeout(DEADLINE, self.node_publish_volume(pod, DEADLINE)).await;
        let result = published.unwrap_or_else(|_| Err(late()));
        if let Err(error) = &result
            && !is_uncertain(error.code())
            && !self.is_mounted(&pod.target_path)
        {
            // The folder may never have been made.
            let _ = fs::remove_dir_all(&pod.target_path);
        }
        result
    }

    /// NodePublishVolume.
    ///
    /// # Errors
    /// The provider's, in the driver's words, on a first mount. On a repeated one they are masked.
    pub async fn node_publish_volume(
        &self,
        pod: &PodVolume,
        deadline: Duration,
    ) -> Result<(), Status> {
        let target = &pod.target_path;
        self.forget_removed(target);
        if self.is_young(target) {
            return Ok(());
        }
        let mounted = self.is_mounted(target);
        if mounted && !self.config.rotation {
            return Ok(());
        }
        if !mounted {
            fs::create_dir_all(target).map_err(|e| Status::internal(e.to_string()))?;
            self.touch(target, false);
        }
        let class = self.class(pod)?;
        let request = mount_request(&class, pod)?;
        if !mounted {
            let made = self.mounts.mount(target);
            made.map_err(|e| Status::internal(e.to_string()))?;
        }
        match self.fill(&class.provider, request, pod, deadline).await {
            Ok(objects) => {
                if let Some(volume) = self.state().volumes.get_mut(target) {
                    volume.mounted = true;
                    volume.status = PodStatus {
                        mounted: true,
                        objects,
                    };
                }
                Ok(())
            }
            Err(error) if mounted => {
                tracing::debug!(%error, "masked: the volume keeps its files");
                Ok(())
            }
            Err(error) => {
                // As the real one: the folder stays, and is young.
                let _ = self.mounts.unmount(target);
                let (ns, name) = (&pod.namespace, &pod.pod);
                Err(Status::new(
                    error.code(),
                    format!(
                        "failed to mount secrets store objects for pod {ns}/{name}, err: rpc error: \
                         code = {:?} desc = {}",
                        error.code(),
                        error.message()
                    ),
                ))
            }
        }
    }

    /// NodeUnpublishVolume.
    ///
    /// # Errors
    /// A folder that cannot be removed.
    pub fn node_unpublish_volume(&self, target_path: &Path) -> Result<(), Status> {
        self.state().volumes.remove(target_path);
        let removed = self.mounts.unmount(target_path);
        match removed.and_then(|()| fs::remove_dir_all(target_path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Status::internal(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Calls the provider and writes what it answers; returns the versions.
    async fn fill(
        &self,
        provider: &str,
        request: MountRequest,
        pod: &PodVolume,
        deadline: Duration,
    ) -> Result<BTreeMap<String, String>, Status> {
        let answer = self.clients.mount(provider, request, deadline).await?;
        let MountResponse {
            object_version,
            error,
            files,
        } = answer;
        if let Some(error) = error.filter(|e| !e.code.is_empty()) {
            return Err(Status::unknown(format!(
                "mount request failed with provider error code {}",
                error.code
            )));
        }
        if object_version.is_empty() {
            return Err(Status::unknown("missing object versions"));
        }
        // No files at all mean: keep what is there.
        if !files.is_empty() && writer::write(&pod.target_path, &files, self.clock.now())? {
            self.touch(&pod.target_path, true);
        }
        Ok(object_version
            .into_iter()
            .map(|v| (v.id, v.version))
            .collect())
    }

    fn class(&self, pod: &PodVolume) -> Result<Class, Status> {
        let key = (pod.namespace.clone(), pod.class.clone());
        let class = self.state().classes.get(&key).cloned().ok_or_else(|| {
            let name = format!("{}/{}", pod.namespace, pod.class);
            Status::unknown(format!(
                "failed to get secretproviderclass {name}, error: not found"
            ))
        })?;
        if class.parameters.is_empty() {
            return Err(Status::unknown("parameters not set in SecretProviderClass"));
        }
        Ok(class)
    }

    /// The skip rule: with rotation on, a folder changed less than an interval ago is left alone,
    /// whether anything is mounted on it or not.
    fn is_young(&self, target: &Path) -> bool {
        let now = self.clock.now();
        self.config.rotation
            && self.state().volumes.get(target).is_some_and(|volume| {
                let age = now.duration_since(volume.modified);
                age.unsigned_abs() < self.config.rotation_poll_interval
            })
    }

    fn is_mounted(&self, target: &Path) -> bool {
        self.state()
            .volumes
            .get(target)
            .is_some_and(|volume| volume.mounted)
    }

    /// kubelet removes a folder after a final error: what is known of it goes too.
    fn forget_removed(&self, target: &Path) {
        if !target.exists() {
            self.state().volumes.remove(target);
        }
    }

    fn touch(&self, target: &Path, mounted: bool) {
        let modified = self.clock.now();
        let mut state = self.state();
        let volume = state
            .volumes
            .entry(target.to_owned())
            .or_insert_with(|| Volume {
                mounted: false,
                modified,
                status: PodStatus::default(),
            });
        volume.modified = modified;
        volume.mounted |= mounted;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Codes after which kubelet does not know whether something was mounted. Source: kubelet,
/// `pkg/volume/csi/csi_client.go`.
fn is_uncertain(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

/// What the driver sends: the class's parameters, with the volume's attributes copied over them.
fn mount_request(class: &Class, pod: &PodVolume) -> Result<MountRequest, Status> {
    let mut attributes = class.parameters.clone();
    attributes.extend(pod.attributes.clone());
    for (key, value) in [
        ("secretProviderClass", pod.class.as_str()),
        ("csi.storage.k8s.io/pod.name", &pod.pod),
        ("csi.storage.k8s.io/pod.namespace", &pod.namespace),
        ("csi.storage.k8s.io/pod.uid", &pod.uid),
        (
            "csi.storage.k8s.io/serviceAccount.name",
            &pod.service_account,
        ),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ] {
        attributes.insert(key.to_owned(), value.to_owned());
    }
    let json =
        |result: serde_json::Result<String>| result.map_err(|e| Status::internal(e.to_string()));
    Ok(MountRequest {
        attributes: json(serde_json::to_string(&attributes))?,
        // A nil map in Go becomes the text `null`.
        secrets: json(serde_json::to_string(&pod.secrets))?,
        target_path: pod.target_path.display().to_string(),
        permission: "420".into(),
        current_object_version: Vec::new(),
    })
}
