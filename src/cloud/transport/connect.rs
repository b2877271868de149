//! Connections: TCP, a proxy's tunnel, TLS.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use super::failure::find;
use super::proxy::{BoxError, Proxy, ProxyError, Stage};
use crate::cloud::error::{ApiError, ErrorKind};
use crate::util::env::Env;
use crate::util::text::{causes, io_reason};

/// Limit of one connection attempt: DNS, TCP, proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to the host and port of a URL.
pub type Dial = Arc<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Socket>> + Send + Sync>;

/// Any byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The byte stream of a connection.
pub struct Socket(pub(in crate::cloud) Pin<Box<dyn Stream>>);

impl Socket {
    /// Wraps a stream.
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

/// Connects over TCP.
pub fn tcp() -> Dial {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Arc::new(move |uri| {
        let mut connector = connector.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| connector.poll_ready(cx))
                .await
                .map_err(io::Error::other)?;
            let stream = connector.call(uri).await.map_err(io::Error::other)?;
            Ok(Socket(Box::pin(stream.into_inner())))
        })
    })
}

/// The connectors of a client.
pub(in crate::cloud) struct Connectors {
    /// To the cloud, through the proxy of the environment if there is one.
    pub(in crate::cloud) cloud: Connector,
    /// To the metadata service, which no proxy can reach.
    pub(in crate::cloud) direct: Connector,
}

impl Connectors {
    pub(in crate::cloud) fn new(
        ca_bundle: Option<&Path>,
        env: &Env,
        dial: Dial,
    ) -> Result<Self, ApiError> {
        let wrong = |text: String| ApiError::local("Connect", ErrorKind::Configuration, text);
        let mut tls = tls(ca_bundle).map_err(wrong)?;
        let proxy_tls = Arc::new(tls.clone());
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let shared = Shared {
            tls: Arc::new(tls),
            proxy_tls,
            dial,
        };
        let proxy = Proxy::from_env(env).map_err(wrong)?;
        Ok(Self {
            cloud: Connector {
                shared: shared.clone(),
                proxy: proxy.map(Arc::new),
            },
            direct: Connector {
                shared,
                proxy: None,
            },
        })
    }
}

fn tls(ca_bundle: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let Some(path) = ca_bundle else {
        // A machine without CA certificates can still talk to an emulator over plain HTTP.
        let system = builder.clone().with_platform_verifier().map_err(|error| {
            tracing::warn!(
                %error,
                "no CA certificates found: https endpoints will be rejected; install ca-certificates or set --ca-bundle"
            );
        });
        return Ok(match system {
            Ok(builder) => builder.with_no_client_auth(),
            Err(()) => builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
        });
    };
    let wrong = |why: String| format!("--ca-bundle {}: {why}", path.display());
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(pem_reason(&error)))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(pem_reason(&error)))?;
        roots.add(certificate).map_err(|error| {
            wrong(format!(
                "contains an invalid CA certificate: {}",
                causes(&error)
            ))
        })?;
    }
    if roots.is_empty() {
        return Err(wrong("contains no certificate (PEM expected)".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Why a file is not one of certificates.
fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {}", io_reason(error)),
        _ => "not PEM: expected lines from BEGIN CERTIFICATE to END CERTIFICATE".to_owned(),
    }
}

#[derive(Clone)]
struct Shared {
    tls: Arc<ClientConfig>,
    /// For `https://` proxies, which speak HTTP/1.1 only.
    proxy_tls: Arc<ClientConfig>,
    dial: Dial,
}

/// Connects for hyper's pool.
#[derive(Clone)]
pub(in crate::cloud) struct Connector {
    shared: Shared,
    proxy: Option<Arc<Proxy>>,
}

/// A connection to the server (TLS or plain) through a connection to a proxy (TLS or plain), or to the
/// server itself.
type Wire = MaybeHttpsStream<MaybeHttpsStream<TokioIo<Socket>>>;

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Wire, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Shared {
            tls,
            proxy_tls,
            dial,
        } = self.shared.clone();
        let proxy = self.proxy.clone().filter(|proxy| proxy.is_for(&uri));
        let through = proxy.clone();
        let connecting: Self::Future = match proxy {
            None => {
                let plain = tower::service_fn(move |uri| {
                    let socket = dial(uri);
                    async move {
                        Ok::<_, io::Error>(MaybeHttpsStream::Http(TokioIo::new(socket.await?)))
                    }
                });
                HttpsConnector::from((plain, tls)).call(uri)
            }
            Some(proxy) => {
                let dialler = tower::service_fn(move |uri| {
                    let socket = dial(uri);
                    async move { Ok::<_, io::Error>(TokioIo::new(socket.await?)) }
                });
                let mut to_proxy = HttpsConnector::from((dialler, proxy_tls));
                let beyond = Arc::clone(&proxy);
                let tunnel = tower::service_fn(move |target: Uri| {
                    let proxy = Arc::clone(&proxy);
                    let connecting = to_proxy.call(proxy.url.clone());
                    async move {
                        let connection = connecting
                            .await
                            .map_err(|error| proxy.error(Stage::Unreachable, error))?;
                        let tunnel = proxy.tunnel(TokioIo::new(connection), &target).await?;
                        Ok::<_, BoxError>(tunnel.into_inner())
                    }
                });
                let whole = HttpsConnector::from((tunnel, tls)).call(uri);
                Box::pin(async move {
                    whole
                        .await
                        .map_err(|error| match find::<ProxyError>(&*error) {
                            Some(_) => error,
                            None => beyond.error(Stage::Beyond, error),
                        })
                })
            }
        };
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_| {
                    let text = format!("timed out after {} s", CONNECT_TIMEOUT.as_secs());
                    match through {
                        Some(proxy) => proxy.error(Stage::TimedOut, text),
                        None => format!("{text} while connecting").into(),
                    }
                })?
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
