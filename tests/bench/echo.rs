//! The upper bound: a tonic server that responds to every Mount with the same bytes.

use std::path::Path;

use dew_provider::proto::csi_driver_provider_server::{CsiDriverProvider, CsiDriverProviderServer};
use dew_provider::proto::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use futures::stream;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

struct Echo(MountResponse);

#[tonic::async_trait]
impl CsiDriverProvider for Echo {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse::default()))
    }

    async fn mount(&self, _: Request<MountRequest>) -> Result<Response<MountResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

/// Serves the response stored in the file next to the socket, until the process is killed.
pub(crate) async fn serve(socket: &Path) {
    let response = std::fs::read(socket.with_extension("response")).unwrap();
    let response: MountResponse = prost::Message::decode(response.as_slice()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let incoming = stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    tonic::transport::Server::builder()
        .add_service(CsiDriverProviderServer::new(Echo(response)))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
