//! Clients of Unix sockets: the provider's own, as the driver calls it, and the driver's.

use std::path::Path;

use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::proto::csi_driver_provider_client::CsiDriverProviderClient;

/// A client of a provider's socket.
pub fn client(path: &Path) -> CsiDriverProviderClient<Channel> {
    CsiDriverProviderClient::new(channel(path))
}

/// A channel that connects on the first call, and again after a connection is lost.
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
    // The address is never dialed; it becomes `:authority`, as with driver v1.6.0.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}
