//! The driver's own CSI socket, called as kubelet calls it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::kube::pods::CsiVolume;
use crate::proto::csi::node_client::NodeClient;
use crate::proto::csi::volume_capability::{AccessMode, MountVolume};
use crate::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use crate::provider::volumes::{Volume, VolumeId};
use crate::socket;

/// As long as kubelet waits.
const DEADLINE: Duration = Duration::from_secs(120);
/// The driver wants an id, and does nothing with it.
const VOLUME_ID: &str = "dew-provider";
const POD: &str = "csi.storage.k8s.io/pod";

/// A client of the driver.
pub(super) struct Driver {
    socket: PathBuf,
    client: NodeClient<Channel>,
}

impl Driver {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: NodeClient::new(socket::channel(socket)),
        }
    }

    /// Whether there is a driver that may be called.
    pub(super) fn is_there(&self) -> bool {
        self.socket.exists()
    }

    /// Has the volume filled anew. The attributes are the pod's own, not what the class said when
    /// it was mounted last: those would stay over a class that was edited.
    pub(super) async fn publish(
        &self,
        id: &VolumeId,
        volume: &Volume,
        csi: &CsiVolume,
    ) -> Result<(), Status> {
        let mut context: HashMap<String, String> = csi.attributes.clone().into_iter().collect();
        let pod = &volume.pod;
        for (key, value) in [
            (format!("{POD}.name"), pod.name.as_str()),
            (format!("{POD}.namespace"), &pod.namespace),
            (format!("{POD}.uid"), &pod.uid),
            (
                "csi.storage.k8s.io/serviceAccount.name".to_owned(),
                &pod.service_account,
            ),
            ("csi.storage.k8s.io/ephemeral".to_owned(), "true"),
        ] {
            context.insert(key, value.to_owned());
        }
        let message = NodePublishVolumeRequest {
            volume_id: VOLUME_ID.to_owned(),
            target_path: id.target_path.clone(),
            volume_capability: Some(VolumeCapability {
                mount: Some(MountVolume {}),
                access_mode: Some(AccessMode { mode: 1 }),
            }),
            readonly: true,
            secrets: (volume.secret.as_ref())
                .map(|secret| secret.as_map())
                .unwrap_or_default(),
            volume_context: context,
        };
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        let mut client = self.client.clone();
        client.node_publish_volume(request).await.map(drop)
    }

    /// Takes away what a call left that came after kubelet's own end of the volume.
    pub(super) async fn unpublish(&self, target_path: &str) -> Result<(), Status> {
        let mut request = Request::new(NodeUnpublishVolumeRequest {
            volume_id: VOLUME_ID.to_owned(),
            target_path: target_path.to_owned(),
        });
        request.set_timeout(DEADLINE);
        let mut client = self.client.clone();
        client.node_unpublish_volume(request).await.map(drop)
    }
}
