//! The driver's connections to providers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::node::socket;
use crate::proto::csi_driver_provider_client::CsiDriverProviderClient;
use crate::proto::{MountRequest, MountResponse};

/// The gRPC retry policy of the driver: UNAVAILABLE only.
const ATTEMPTS: u32 = 3;
const BACKOFF: Duration = Duration::from_secs(1);
/// How often an unavailable socket is tried again.
const SOCKET_POLL_INTERVAL: Duration = Duration::from_millis(50);

type ProviderClient = CsiDriverProviderClient<Channel>;

/// The clients of all providers. Each is created on the first mount and kept.
pub(super) struct ProviderClients {
    folder: PathBuf,
    max_recv_bytes: usize,
    clients: Mutex<HashMap<String, ProviderClient>>,
}

impl ProviderClients {
    pub(super) fn new(folder: PathBuf, max_recv_bytes: usize) -> Self {
        Self {
            folder,
            max_recv_bytes,
            clients: Mutex::default(),
        }
    }

    /// Calls Mount with a gRPC deadline. Waits for an unavailable provider without a limit.
    pub(super) async fn mount(
        &self,
        provider: &str,
        message: MountRequest,
        deadline: Duration,
    ) -> Result<MountResponse, Status> {
        let end = Instant::now() + deadline;
        let socket = self.folder.join(format!("{provider}.sock"));
        let mut client = self.client(provider, &socket).await?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            wait_for(&socket).await;
            let mut request = Request::new(message.clone());
            request.set_timeout(end.saturating_duration_since(Instant::now()));
            match client.mount(request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if status.code() == Code::Unavailable && attempt < ATTEMPTS => {
                    sleep(BACKOFF).await;
                }
                // Over the size limit, grpc-go returns RESOURCE_EXHAUSTED, and tonic OUT_OF_RANGE.
                Err(status) if status.code() == Code::OutOfRange => {
                    return Err(Status::resource_exhausted(status.message()));
                }
                Err(status) => return Err(status),
            }
        }
    }

    async fn client(&self, provider: &str, socket: &Path) -> Result<ProviderClient, Status> {
        let valid = provider.len() <= 30
            && provider
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(provider) {
            return Ok(client.clone());
        }
        if !valid || !socket.exists() {
            return Err(Status::unknown(format!(
                "error connecting to provider {provider:?}: provider not found: provider {provider:?}"
            )));
        }
        let client = socket::client(socket).max_decoding_message_size(self.max_recv_bytes);
        clients.insert(provider.to_owned(), client.clone());
        Ok(client)
    }
}

/// Waits until the socket accepts connections, as gRPC's `waitForReady` does. The caller sets a
/// timeout.
async fn wait_for(socket: &Path) {
    while UnixStream::connect(socket).await.is_err() {
        sleep(SOCKET_POLL_INTERVAL).await;
    }
}
