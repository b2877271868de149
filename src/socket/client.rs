//! Clients of Unix sockets: of a provider's, as the driver is one, and of the driver's own.

use std::path::Path;

use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::proto::csi_driver_provider_client::CsiDriverProviderClient;

/// A client of a provider's socket.
pub fn client(path: &Path) -> CsiDriverProviderClient<Channel> {
    CsiDriverProviderClient::new(channel(path))
}

/// Connects at the first call, and again after a connection was lost.
pub fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connect = service_fn(move |_| {
        let path = path.clone();
        async move {
            UnixStream::connect(path)
                .await
                .map(hyper_util::rt::TokioIo::new)
        }
    });
    // The address is never dialled; it becomes `:authority`, as of driver v1.6.0.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}
