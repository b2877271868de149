//! What stands between the provider and the emulator: connections that fail, a TLS endpoint, and a proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dew_provider::cloud;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Failure {
    Refused,
    UnknownName,
    NoConnection,
    Handshake,
    Untrusted,
    NotHttp,
    Tunnel(u16),
}

/// The failure at the moment, if any.
pub(super) type Switch = Arc<Mutex<Option<Failure>>>;

/// Connects over TCP, or fails as the switch says.
pub(super) fn dial(switch: Switch) -> cloud::Dial {
    let tcp = cloud::tcp();
    Arc::new(move |uri| {
        let failed = |text| Box::pin(async move { Err(std::io::Error::other(text)) });
        match *switch.lock().unwrap() {
            Some(Failure::Refused) => {
                Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
            }
            Some(Failure::UnknownName) => {
                failed("failed to lookup address information: Name or service not known")
            }
            Some(Failure::NoConnection) => Box::pin(std::future::pending()),
            _ => tcp(uri),
        }
    })
}

/// A TLS endpoint before the emulator, with a proxy before it.
pub(super) struct Front {
    pub(super) endpoint: String,
    pub(super) proxy: String,
    dir: tempfile::TempDir,
    backend: Arc<Mutex<Option<SocketAddr>>>,
}

impl Front {
    pub(super) async fn start(switch: Switch) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (trusted, pem) = acceptor();
        let (untrusted, _) = acceptor();
        std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let proxy = proxy(Arc::clone(&switch)).await;
        let address = Arc::clone(&backend);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let failure = *switch.lock().unwrap();
                let backend = address.lock().unwrap().unwrap();
                let tls = match failure {
                    Some(Failure::Untrusted) => untrusted.clone(),
                    _ => trusted.clone(),
                };
                tokio::spawn(async move { serve(client, tls, failure, backend).await });
            }
        });
        Self {
            endpoint: format!("https://localhost:{port}"),
            proxy,
            dir,
            backend,
        }
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Sets the emulator, as `http://address:port`.
    pub(super) fn set_backend(&self, url: &str) {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        *self.backend.lock().unwrap() = Some(address);
    }
}

fn acceptor() -> (TlsAcceptor, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

async fn serve(
    mut client: TcpStream,
    tls: TlsAcceptor,
    failure: Option<Failure>,
    backend: SocketAddr,
) -> std::io::Result<()> {
    if failure == Some(Failure::Handshake) {
        return client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    }
    let mut client = tls.accept(client).await?;
    if failure == Some(Failure::NotHttp) {
        client.read_u8().await?;
        client.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await?;
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect(backend).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Starts a proxy, and returns its URL.
async fn proxy(switch: Switch) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let failure = *switch.lock().unwrap();
            tokio::spawn(async move { tunnel(client, failure).await });
        }
    });
    format!("http://{address}")
}

async fn tunnel(mut client: TcpStream, failure: Option<Failure>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    if let Some(Failure::Tunnel(status)) = failure {
        let refusal = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        return client.write_all(refusal.as_bytes()).await;
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
