//! The driver's interfaces to kubelet and the API server: serves CSI on a socket, reads
//! SecretProviderClasses and writes SecretProviderClassPodStatuses.

use std::path::Path;
use std::sync::Arc;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{Driver, KUBELET_TIMEOUT, PodVolume};
use crate::kube::SecretProviderClass;
use crate::node::socket::{self, SocketError};
use crate::proto::csi::identity_server::{Identity, IdentityServer};
use crate::proto::csi::node_server::{Node, NodeServer};
use crate::proto::csi::*;

/// Name of the CSI driver.
pub const NAME: &str = "secrets-store.csi.k8s.io";
const POD_PREFIX: &str = "csi.storage.k8s.io/pod";
const SERVICE_ACCOUNT_KEY: &str = "csi.storage.k8s.io/serviceAccount.name";

/// A running CSI server. It stops when dropped.
pub struct Serving {
    _stop: DropGuard,
}

/// The driver on one node of a cluster. Its volumes survive a restart of the server.
#[derive(Clone)]
pub struct Csi {
    driver: Arc<Driver>,
    kube: kube::Client,
    node: String,
}

impl Csi {
    /// Creates the driver's CSI services for the node with this name.
    pub fn new(driver: Arc<Driver>, kube: kube::Client, node: &str) -> Self {
        let node = node.to_owned();
        Self { driver, kube, node }
    }

    /// Starts serving CSI on `socket`.
    ///
    /// # Errors
    /// If the socket cannot be created.
    pub fn serve(&self, socket: &Path) -> Result<Serving, SocketError> {
        let stop = CancellationToken::new();
        let server = Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(NodeServer::new(self.clone()))
            .serve_with_incoming_shutdown(
                socket::bind(socket)?.incoming(),
                stop.clone().cancelled_owned(),
            );
        tokio::spawn(server);
        Ok(Serving {
            _stop: stop.drop_guard(),
        })
    }

    /// Publishes a volume as kubelet does, without a connection. See
    /// [`Driver::publish_as_kubelet`].
    ///
    /// # Errors
    /// If the class cannot be read, publishing fails, or the pod status cannot be written.
    pub async fn publish_as_kubelet(&self, pod: &PodVolume) -> Result<(), Status> {
        self.load_class(pod).await?;
        self.driver.publish_as_kubelet(pod).await?;
        self.record(pod).await
    }

    /// Reads the class from the API server on each call; the real driver has a cache.
    async fn load_class(&self, pod: &PodVolume) -> Result<(), Status> {
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

    /// Writes the SecretProviderClassPodStatus of a volume.
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
                "labels": {"internal.secrets-store.csi.k8s.io/node-name": self.node},
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
impl Identity for Csi {
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
impl Node for Csi {
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
            namespace: take(&format!("{POD_PREFIX}.namespace")),
            pod: take(&format!("{POD_PREFIX}.name")),
            uid: take(&format!("{POD_PREFIX}.uid")),
            service_account: take(SERVICE_ACCOUNT_KEY),
            class: take("secretProviderClass"),
            attributes: volume_context.into_iter().collect(),
            secrets: (!secrets.is_empty()).then(|| secrets.into_iter().collect()),
            target_path: target_path.into(),
        };
        self.load_class(&pod).await?;
        let published = self.driver.node_publish_volume(&pod, KUBELET_TIMEOUT);
        tokio::time::timeout(KUBELET_TIMEOUT, published)
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
            node_id: self.node.clone(),
        }))
    }
}
