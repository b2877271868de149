//! The socket as a driver sees it: recorded bytes of an old driver, other clients, garbage, and the
//! socket file.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::Path;

use dew_provider::node::socket::{self, Connection, SocketError};
use dew_provider::proto::csi_driver_provider_server::{CsiDriverProvider, CsiDriverProviderServer};
use dew_provider::proto::{MountRequest, MountResponse, VersionRequest, VersionResponse};
use futures::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const CAPTURE: &[u8] = include_bytes!("../data/driver-1.5.6-two-calls.bin");

/// Sends every Mount that it receives to the channel.
struct Recorder(mpsc::UnboundedSender<MountRequest>);

#[tonic::async_trait]
impl CsiDriverProvider for Recorder {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            runtime_version: "test".into(),
            ..Default::default()
        }))
    }

    async fn mount(
        &self,
        request: Request<MountRequest>,
    ) -> Result<Response<MountResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(MountResponse::default()))
    }
}

/// Serves on `path`; the receiver gets every Mount.
fn serve(path: &Path) -> mpsc::UnboundedReceiver<MountRequest> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let incoming = socket::bind(path).unwrap().incoming();
    let service = CsiDriverProviderServer::new(Recorder(sender));
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    receiver
}

async fn runtime_version(path: &Path) -> String {
    let response = socket::client(path)
        .version(VersionRequest::default())
        .await;
    response.unwrap().into_inner().runtime_version
}

#[tokio::test]
async fn both_mounts_of_an_old_driver_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    let mut mounts = serve(&path);
    let mut driver = UnixStream::connect(&path).await.unwrap();
    driver.write_all(CAPTURE).await.unwrap();
    for _ in 0..2 {
        let mount = mounts.recv().await.unwrap();
        assert!(
            mount
                .attributes
                .contains(r#""csi.storage.k8s.io/pod.name":"p1""#)
        );
        assert_eq!(mount.secrets, "null");
    }
}

#[tokio::test]
async fn mounts_of_an_old_driver_arrive_however_the_bytes_are_split() {
    for cut in 1..CAPTURE.len() {
        // The pipe holds only the first part, so the second is written once the first was read.
        let (mut driver, provider) = tokio::io::duplex(cut);
        let (sender, mut mounts) = mpsc::unbounded_channel();
        let incoming = stream::iter([Ok::<_, std::io::Error>(Connection::new(provider))])
            .chain(stream::pending());
        let server = tokio::spawn(
            Server::builder()
                .add_service(CsiDriverProviderServer::new(Recorder(sender)))
                .serve_with_incoming(incoming),
        );
        driver.write_all(&CAPTURE[..cut]).await.unwrap();
        let (mut read, mut write) = tokio::io::split(driver);
        // Without a reader of the responses, the server would block.
        let reader =
            tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        write.write_all(&CAPTURE[cut..]).await.unwrap();
        assert!(
            mounts.recv().await.is_some() && mounts.recv().await.is_some(),
            "cut at {cut}"
        );
        reader.abort();
        server.abort();
    }
}

#[tokio::test]
async fn a_current_client_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    let _mounts = serve(&path);
    assert_eq!(runtime_version(&path).await, "test");
}

#[tokio::test]
async fn garbage_closes_only_its_own_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    let _mounts = serve(&path);
    let headers = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x01\x01\x0d\0\0\0\x01\xff";
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        headers,
        &CAPTURE[..200],
    ] {
        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(garbage).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // Ends when the server closes or resets the connection.
        let _ = peer.read_to_end(&mut rest).await;
        assert_eq!(runtime_version(&path).await, "test");
    }
}

#[tokio::test]
async fn the_socket_file_is_private_and_removed_on_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/dir/cce.sock");
    let bound = socket::bind(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    drop(BlockingListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed process leaves its socket");
    let bound = socket::bind(&path).unwrap();
    let error = socket::bind(&path).expect_err("in use");
    assert!(matches!(&error, SocketError::InUse(_)), "{error}");
    assert!(error.to_string().contains("--provider-name"), "{error}");
    drop(bound);
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    let old = socket::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let successor = BlockingListener::bind(&path).unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    drop(old);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    drop(successor);
}

#[tokio::test]
async fn unusable_paths_are_rejected_and_other_files_are_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cce.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        socket::bind(&path),
        Err(SocketError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(socket::bind(&long), Err(SocketError::TooLong(_))));
    let inside_a_file = path.join("cce.sock");
    let error = socket::bind(&inside_a_file)
        .expect_err("no directory")
        .to_string();
    assert!(error.contains("cannot create its directory"), "{error}");
}
