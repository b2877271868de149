//! A stand-in for the Secrets Store CSI Driver on a real node: CSI for kubelet, the library's
//! [`Driver`] behind it, tmpfs mounts, and SecretProviderClassPodStatuses. It does not sync Secrets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dew_provider::clock::Clock;
use dew_provider::driver::{Driver, DriverConfig, Mounts, PodVolume};
use dew_provider::kube::SecretProviderClass;
use dew_provider::socket;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[allow(missing_docs, unreachable_pub)]
pub(crate) mod proto {
    tonic::include_proto!("csi.v1");
}
#[allow(missing_docs, unreachable_pub)]
mod registration {
    tonic::include_proto!("pluginregistration");
}

use proto::identity_server::{Identity, IdentityServer};
use proto::node_server::{Node, NodeServer};
use proto::*;
use registration::registration_server::{Registration, RegistrationServer};
use registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

pub(crate) const NAME: &str = "secrets-store.csi.k8s.io";
const NODE: &str = "node1";
const POD: &str = "csi.storage.k8s.io/pod";
const ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
/// kubelet waits two minutes.
const DEADLINE: Duration = Duration::from_secs(120);

/// A server that ends, with its socket, when dropped.
pub(crate) struct Serving {
    _stop: DropGuard,
}

/// Where the driver's socket is, below kubelet's folder.
pub(crate) fn driver_socket(kubelet: &Path) -> PathBuf {
    kubelet.join("plugins/csi-secrets-store/csi.sock")
}

/// Tells kubelet of the driver: the work of its node-driver-registrar, which comes as an image only.
pub(crate) fn register(kubelet: &Path) -> Serving {
    let registrar = Registrar {
        endpoint: driver_socket(kubelet).display().to_string(),
    };
    let path = kubelet.join(format!("plugins_registry/{NAME}-reg.sock"));
    let stop = CancellationToken::new();
    let server = Server::builder()
        .add_service(RegistrationServer::new(registrar))
        .serve_with_incoming_shutdown(
            socket::bind(&path).unwrap().incoming(),
            stop.clone().cancelled_owned(),
        );
    tokio::spawn(server);
    Serving {
        _stop: stop.drop_guard(),
    }
}

struct Registrar {
    endpoint: String,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = status.into_inner();
        if !status.plugin_registered {
            println!(
                "cluster: kubelet did not register the driver: {}",
                status.error
            );
        }
        Ok(Response::new(RegistrationStatusResponse::default()))
    }
}

/// The stand-in. Volumes outlive a restart of its server.
#[derive(Clone)]
pub(crate) struct StandIn {
    driver: Arc<Driver>,
    kube: kube::Client,
}

impl StandIn {
    pub(crate) fn new(kube: kube::Client) -> Self {
        let config = DriverConfig {
            rotation_poll_interval: Duration::from_secs(1),
            ..DriverConfig::new("/var/run/secrets-store-csi-providers")
        };
        let driver = Driver::with_mounts(config, Clock::system(), Box::new(Tmpfs));
        Self {
            driver: Arc::new(driver),
            kube,
        }
    }

    pub(crate) fn serve(&self, kubelet: &Path) -> Serving {
        let stop = CancellationToken::new();
        let incoming = socket::bind(&driver_socket(kubelet)).unwrap().incoming();
        let server = Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(NodeServer::new(self.clone()))
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(server);
        Serving {
            _stop: stop.drop_guard(),
        }
    }

    /// Reads the class anew each time, as the driver's cache would soon.
    async fn learn(&self, pod: &PodVolume) -> Result<(), Status> {
        let api: Api<SecretProviderClass> = Api::namespaced(self.kube.clone(), &pod.namespace);
        let class = api.get(&pod.class).await.map_err(|error| {
            let name = format!("{}/{}", pod.namespace, pod.class);
            Status::unknown(format!(
                "failed to get secretproviderclass {name}, error: {error}"
            ))
        })?;
        let provider = class.spec.provider.unwrap_or_default();
        let parameters = class.spec.parameters.unwrap_or_default();
        self.driver
            .apply(&pod.namespace, &pod.class, &provider, parameters);
        Ok(())
    }

    async fn record(&self, pod: &PodVolume) -> Result<(), Status> {
        let Some(status) = self.driver.status(&pod.target_path) else {
            return Ok(());
        };
        let kind = GroupVersionKind::gvk(
            "secrets-store.csi.x-k8s.io",
            "v1",
            "SecretProviderClassPodStatus",
        );
        let kind = ApiResource::from_gvk_with_plural(&kind, "secretproviderclasspodstatuses");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.kube.clone(), &pod.namespace, &kind);
        let name = format!("{}-{}-{}", pod.pod, pod.namespace, pod.class);
        let objects: Vec<_> = status
            .objects
            .iter()
            .map(|(id, version)| json!({"id": id, "version": version}))
            .collect();
        let object = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClassPodStatus",
            "metadata": {
                "name": name,
                "labels": {"internal.secrets-store.csi.k8s.io/node-name": NODE},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.pod, "uid": pod.uid}],
            },
            "status": {
                "podName": pod.pod,
                "secretProviderClassName": pod.class,
                "mounted": status.mounted,
                "targetPath": pod.target_path,
                "objects": objects,
            },
        });
        let params = PatchParams::apply("stand-in").force();
        let patched = api.patch(&name, &params, &Patch::Apply(object)).await;
        patched
            .map(drop)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[tonic::async_trait]
impl Identity for StandIn {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: NAME.into(),
            vendor_version: "0".into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse::default()))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse::default()))
    }
}

#[tonic::async_trait]
impl Node for StandIn {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let NodePublishVolumeRequest {
            target_path,
            readonly,
            secrets,
            mut volume_context,
            ..
        } = request.into_inner();
        if !readonly {
            return Err(Status::invalid_argument("Readonly is not true in request"));
        }
        let mut take = |key: &str| volume_context.remove(key).unwrap_or_default();
        let pod = PodVolume {
            namespace: take(&format!("{POD}.namespace")),
            pod: take(&format!("{POD}.name")),
            uid: take(&format!("{POD}.uid")),
            service_account: take(ACCOUNT),
            class: take("secretProviderClass"),
            attributes: volume_context.into_iter().collect(),
            secrets: (!secrets.is_empty()).then(|| secrets.into_iter().collect()),
            target_path: target_path.into(),
        };
        self.learn(&pod).await?;
        let published = self.driver.node_publish_volume(&pod, DEADLINE);
        tokio::time::timeout(DEADLINE, published)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))?;
        self.record(&pod).await?;
        Ok(Response::new(NodePublishVolumeResponse::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.driver
            .node_unpublish_volume(Path::new(&request.into_inner().target_path))?;
        Ok(Response::new(NodeUnpublishVolumeResponse::default()))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(NodeGetCapabilitiesResponse::default()))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: NODE.into(),
        }))
    }
}

/// Volumes as the real driver makes them, by the programs that it calls.
struct Tmpfs;

impl Tmpfs {
    fn run(program: &str, arguments: &[&str], target: &Path) -> io::Result<()> {
        let done = Command::new(program).args(arguments).arg(target).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(io::Error::other(
            String::from_utf8_lossy(&done.stderr).into_owned(),
        ))
    }

    fn is_mounted(target: &Path) -> io::Result<bool> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(table.lines().any(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|at| Path::new(at) == target)
        }))
    }
}

impl Mounts for Tmpfs {
    fn mount(&self, target: &Path) -> io::Result<()> {
        Self::run("mount", &["-t", "tmpfs", "tmpfs"], target)
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        if Self::is_mounted(target)? {
            return Self::run("umount", &[], target);
        }
        Ok(())
    }
}
