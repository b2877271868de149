//! A client of the driver's own CSI socket, which calls it as kubelet does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::kube::pods::CsiVolume;
use crate::node::socket;
use crate::node::volumes::{MountRecord, VolumeId};
use crate::proto::csi::node_client::NodeClient;
use crate::proto::csi::volume_capability::{AccessMode, MountVolume};
use crate::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};

/// Limit of one call, the same as kubelet's.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The driver requires an ID and ignores it.
const CSI_VOLUME_ID: &str = "dew-provider";
const POD_INFO: &str = "csi.storage.k8s.io/pod";

pub(super) struct CsiClient {
    socket: PathBuf,
    client: NodeClient<Channel>,
}

impl CsiClient {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: NodeClient::new(socket::channel(socket)),
        }
    }

    /// Whether the driver's socket exists.
    pub(super) fn is_available(&self) -> bool {
        self.socket.exists()
    }

    /// Makes the driver update a volume. Sends the attributes of the pod's volume: those of the last Mount
    /// would override a class that was edited since then.
    pub(super) async fn publish(
        &self,
        id: &VolumeId,
        record: &MountRecord,
        csi: &CsiVolume,
    ) -> Result<(), Status> {
        let mut context: HashMap<String, String> = csi.attributes.clone().into_iter().collect();
        let pod = &record.pod;
        for (key, value) in [
            (format!("{POD_INFO}.name"), pod.name.as_str()),
            (format!("{POD_INFO}.namespace"), &pod.namespace),
            (format!("{POD_INFO}.uid"), &pod.uid),
            (
                "csi.storage.k8s.io/serviceAccount.name".to_owned(),
                &pod.service_account,
            ),
            ("csi.storage.k8s.io/ephemeral".to_owned(), "true"),
        ] {
            context.insert(key, value.to_owned());
        }
        let message = NodePublishVolumeRequest {
            volume_id: CSI_VOLUME_ID.to_owned(),
            target_path: id.target_path.clone(),
            volume_capability: Some(VolumeCapability {
                mount: Some(MountVolume {}),
                access_mode: Some(AccessMode { mode: 1 }),
            }),
            readonly: true,
            secrets: (record.publish_secret.as_ref())
                .map(|secret| secret.to_map())
                .unwrap_or_default(),
            volume_context: context,
        };
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        let mut client = self.client.clone();
        client.node_publish_volume(request).await.map(drop)
    }

    /// Unmounts a volume that a nudge mounted again after kubelet had unmounted it.
    pub(super) async fn unpublish(&self, target_path: &str) -> Result<(), Status> {
        let mut request = Request::new(NodeUnpublishVolumeRequest {
            volume_id: CSI_VOLUME_ID.to_owned(),
            target_path: target_path.to_owned(),
        });
        request.set_timeout(CALL_TIMEOUT);
        let mut client = self.client.clone();
        client.node_unpublish_volume(request).await.map(drop)
    }
}
