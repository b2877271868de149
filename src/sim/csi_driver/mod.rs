//! A stand-in for the Secrets Store CSI Driver v1.6.0, for the demo and the tests.
//!
//! It behaves as the real driver does, with these differences:
//!
//! - A volume is a plain folder, unless an implementation of [`Mounts`] mounts it.
//! - SecretProviderClasses and pod statuses are kept in memory; [`csi`] adds the API server.
//! - Modification times of folders are kept in memory, so that they follow a test's clock.
//!
//! Source of the behavior: kubernetes-sigs/secrets-store-csi-driver v1.6.0, `pkg/secrets-store`
//! (nodeserver.go, provider_client.go) and `pkg/util/fileutil`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tonic::{Code, Status};

use crate::proto::{MountRequest, MountResponse};
use crate::util::clock::Clock;

mod client;
pub mod csi;
mod mounts;
mod writer;

pub use mounts::Mounts;
use mounts::PlainFolders;

/// kubelet's timeout of a CSI call.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(120);

/// Settings that the real driver takes from its flags.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Folder with the sockets of the providers.
    pub providers_dir: PathBuf,
    /// `--enable-secret-rotation`.
    pub rotation: bool,
    /// `--rotation-poll-interval`: a volume modified more recently than this is skipped.
    pub rotation_poll_interval: Duration,
    /// `--max-call-recv-msg-size`, in bytes.
    pub max_recv_bytes: usize,
}

impl DriverConfig {
    /// The defaults of the real driver, but with rotation enabled.
    pub fn new(providers_dir: impl Into<PathBuf>) -> Self {
        Self {
            providers_dir: providers_dir.into(),
            rotation: true,
            rotation_poll_interval: Duration::from_secs(120),
            max_recv_bytes: 4 * 1024 * 1024,
        }
    }
}

/// A pod with one volume, as kubelet describes it to the driver.
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
    /// Other `volumeAttributes` of the volume.
    pub attributes: BTreeMap<String, String>,
    /// Data of the Secret that `nodePublishSecretRef` names.
    pub secrets: Option<BTreeMap<String, String>>,
    /// Folder of the volume.
    pub target_path: PathBuf,
}

/// The content of a volume's SecretProviderClassPodStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// Whether the volume is mounted.
    pub mounted: bool,
    /// Versions by object ID.
    pub objects: BTreeMap<String, String>,
}

/// The fields of a SecretProviderClass that the driver reads.
#[derive(Clone, Debug)]
struct ProviderClass {
    provider: String,
    parameters: BTreeMap<String, String>,
}

struct DriverVolume {
    mounted: bool,
    /// Modification time of the folder.
    modified: Timestamp,
    status: PodStatus,
}

#[derive(Default)]
struct DriverState {
    classes: HashMap<(String, String), ProviderClass>,
    volumes: HashMap<PathBuf, DriverVolume>,
}

/// The simulated driver.
pub struct Driver {
    config: DriverConfig,
    clock: Clock,
    clients: client::ProviderClients,
    mounts: Box<dyn Mounts>,
    state: Mutex<DriverState>,
}

impl Driver {
    /// Creates a driver without classes and volumes. Volumes are plain folders.
    pub fn new(config: DriverConfig, clock: Clock) -> Self {
        Self::with_mounts(config, clock, Box::new(PlainFolders))
    }

    /// Creates a driver whose volumes are mounted by `mounts`.
    pub fn with_mounts(config: DriverConfig, clock: Clock, mounts: Box<dyn Mounts>) -> Self {
        let clients =
            client::ProviderClients::new(config.providers_dir.clone(), config.max_recv_bytes);
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
        let class = ProviderClass {
            provider: provider.to_owned(),
            parameters,
        };
        self.state()
            .classes
            .insert((namespace.to_owned(), name.to_owned()), class);
    }

    /// The pod status of a volume, or `None` for an unknown volume.
    pub fn status(&self, target_path: &Path) -> Option<PodStatus> {
        self.state()
            .volumes
            .get(target_path)
            .map(|volume| volume.status.clone())
    }

    /// Calls [`Self::node_publish_volume`] as kubelet does, with a timeout of two minutes. A final
    /// error removes the folder; any other keeps it, because the mount may have succeeded.
    ///
    /// # Errors
    /// The error of `node_publish_volume`, or DEADLINE_EXCEEDED.
    pub async fn publish_as_kubelet(&self, pod: &PodVolume) -> Result<(), Status> {
        let published = self.node_publish_volume(pod, KUBELET_TIMEOUT);
        let result = tokio::time::timeout(KUBELET_TIMEOUT, published)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        if let Err(error) = &result
            && !is_uncertain(error.code())
            && !self.is_mounted(&pod.target_path)
        {
            // The folder may not exist.
            let _ = fs::remove_dir_all(&pod.target_path);
        }
        result
    }

    /// NodePublishVolume. `deadline` limits the call of the provider.
    ///
    /// # Errors
    /// If the folder cannot be created, the class is missing or invalid, or the first mount fails.
    /// Later failures are logged, and the volume keeps its files.
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
        let known = self.is_mounted(target);
        let mounted = known || self.mounts.is_mounted(target);
        if mounted && !self.config.rotation {
            return Ok(());
        }
        if mounted && !known {
            self.touch(target, true);
        }
        if !mounted {
            fs::create_dir_all(target).map_err(|e| Status::internal(e.to_string()))?;
            self.touch(target, false);
        }
        let class = self.class(pod)?;
        let request = mount_request(&class, pod)?;
        if !mounted {
            self.mounts
                .mount(target)
                .map_err(|e| Status::internal(e.to_string()))?;
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
                tracing::debug!(%error, "remount failed; the volume keeps its files");
                Ok(())
            }
            Err(error) => {
                // Like the real driver, keep the new folder: `is_young` skips it for an interval.
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
    /// If the volume cannot be unmounted or its folder cannot be removed.
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

    /// Calls the provider, writes the files of the response and returns the versions by object ID.
    async fn fill(
        &self,
        provider: &str,
        request: MountRequest,
        pod: &PodVolume,
        deadline: Duration,
    ) -> Result<BTreeMap<String, String>, Status> {
        let response = self.clients.mount(provider, request, deadline).await?;
        let MountResponse {
            object_version,
            error,
            files,
        } = response;
        if let Some(error) = error.filter(|e| !e.code.is_empty()) {
            return Err(Status::unknown(format!(
                "mount request failed with provider error code {}",
                error.code
            )));
        }
        if object_version.is_empty() {
            return Err(Status::unknown("missing object versions"));
        }
        // A response without files keeps the current ones.
        if !files.is_empty() && writer::write(&pod.target_path, &files, self.clock.now())? {
            self.touch(&pod.target_path, true);
        }
        Ok(object_version
            .into_iter()
            .map(|v| (v.id, v.version))
            .collect())
    }

    fn class(&self, pod: &PodVolume) -> Result<ProviderClass, Status> {
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

    /// With rotation on, a folder modified within the last interval is skipped, mounted or not.
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

    /// Forgets a volume whose folder is gone: kubelet removes it after a final error.
    fn forget_removed(&self, target: &Path) {
        if !target.exists() {
            self.state().volumes.remove(target);
        }
    }

    /// Sets the modification time of the folder to now, and marks it mounted if `mounted`.
    fn touch(&self, target: &Path, mounted: bool) {
        let modified = self.clock.now();
        let mut state = self.state();
        let volume = state
            .volumes
            .entry(target.to_owned())
            .or_insert_with(|| DriverVolume {
                mounted: false,
                modified,
                status: PodStatus::default(),
            });
        volume.modified = modified;
        volume.mounted |= mounted;
    }

    fn state(&self) -> MutexGuard<'_, DriverState> {
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

/// Codes that leave kubelet uncertain whether the volume is mounted. Source: kubelet,
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

/// Builds the request to the provider. Attributes of the volume override parameters of the class.
fn mount_request(class: &ProviderClass, pod: &PodVolume) -> Result<MountRequest, Status> {
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
        // In Go, a nil map is marshaled to `null`.
        secrets: json(serde_json::to_string(&pod.secrets))?,
        target_path: pod.target_path.display().to_string(),
        permission: "420".into(),
        current_object_version: Vec::new(),
    })
}
