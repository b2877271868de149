//! The limit: a tonic server that answers every Mount with the same bytes.

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

/// Serves the answer in the file beside the socket until it is killed.
pub(crate) async fn serve(socket: &Path) {
    let answer = std::fs::read(socket.with_extension("answer")).unwrap();
    let answer: MountResponse = prost::Message::decode(answer.as_slice()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let incoming = stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    tonic::transport::Server::builder()
        .add_service(CsiDriverProviderServer::new(Echo(answer)))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}
