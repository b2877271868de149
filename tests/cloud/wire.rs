//! The client over real sockets: TLS, HTTP/2, CA bundles and proxies.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use dew_provider::cloud::{
    AccessKeys, ApiError, Caller, Cloud, CloudConfig, Credentials, Csms, ErrorKind, SecretVersion,
    Source, Turn,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// What a server received, in order.
type Received = Arc<Mutex<Vec<String>>>;

/// Responds to every request with a secret version, and records HTTP version, host and path.
fn app(requests: Received) -> Router {
    Router::new().fallback(async move |request: Request| {
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
        requests.lock().unwrap().push(format!(
            "{:?} {} {}",
            request.version(),
            host.unwrap_or_default(),
            request.uri().path()
        ));
        r#"{"version":{"version_metadata":{"id":"v1","create_time":1},"secret_string":"value"}}"#
    })
}

struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.tcp.accept().await else {
                continue;
            };
            // Fails if the client does not trust the certificate.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A CSMS with TLS for `localhost`, and a directory with its certificate.
struct Server {
    port: u16,
    requests: Received,
    dir: tempfile::TempDir,
}

impl Server {
    async fn start(protocols: &[&str]) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let tls = TlsAcceptor::from(Arc::new(config));
        let requests = Received::default();
        let app = app(Arc::clone(&requests));
        tokio::spawn(async move { axum::serve(TlsListener { tcp, tls }, app).await });
        Self {
            port,
            requests,
            dir,
        }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn config(&self) -> CloudConfig {
        CloudConfig {
            csms_endpoint: Some(format!("https://localhost:{}", self.port)),
            ca_bundle: Some(self.ca()),
            ..CloudConfig::default()
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An HTTP proxy that records its CONNECT requests.
async fn proxy() -> (String, Received) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let tunnels = Received::default();
    let received = Arc::clone(&tunnels);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = tcp.accept().await {
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                received.lock().unwrap().push(head);
                let mut server = TcpStream::connect(target).await.unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (format!("http://user:pass@{address}"), tunnels)
}

fn client(config: CloudConfig, env: &[(&str, &str)]) -> Result<Cloud, ApiError> {
    Cloud::new(
        config,
        &Env::from_pairs(env.iter().copied()),
        Clock::system(),
        Jitter::seeded(1),
        CloudMetrics::default(),
    )
}

async fn show(cloud: &Cloud) -> Result<SecretVersion, ApiError> {
    let caller = Caller {
        region: "cn-north-4".parse().unwrap(),
        project: Some("p1".into()),
        credentials: Credentials::fixed(AccessKeys::new("AK", "SK", None, None), "test"),
        turn: Turn::default(),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    Csms::new(cloud.clone())
        .show_secret_version(&caller, "db", "v1", deadline)
        .await
}

#[tokio::test]
async fn http_2_is_used_if_the_server_offers_it() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
    ] {
        let server = Server::start(protocols).await;
        let cloud = client(server.config(), &[]).unwrap();
        assert_eq!(show(&cloud).await.unwrap().value.bytes().expose(), b"value");
        let line = format!(
            "{version} localhost:{} /v1/p1/secrets/db/versions/v1",
            server.port
        );
        assert_eq!(server.requests(), [line]);
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_retried() {
    let server = Server::start(&["h2"]).await;
    let other = Server::start(&["h2"]).await;
    let config = CloudConfig {
        ca_bundle: Some(other.ca()),
        ..server.config()
    };
    let error = show(&client(config, &[]).unwrap()).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Connect, 1));
    assert!(error.message.contains("--ca-bundle"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn an_invalid_ca_bundle_is_rejected_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let bad = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        (dir.path().join("missing"), "No such file"),
        (bad("empty", ""), "no certificate"),
        (bad("text", "hello\n"), "no certificate"),
        (bad("broken", broken), "invalid CA certificate"),
    ];
    for (path, expected) in cases {
        let name = path.display().to_string();
        let config = CloudConfig {
            ca_bundle: Some(path),
            ..CloudConfig::default()
        };
        let error = client(config, &[]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        for part in ["--ca-bundle", name.as_str(), expected] {
            assert!(error.message.contains(part), "{error}");
        }
    }
}

#[tokio::test]
async fn https_goes_through_the_proxy_unless_no_proxy_names_the_host() {
    let server = Server::start(&["h2"]).await;
    for name in ["https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        let (proxy, tunnels) = proxy().await;
        show(&client(server.config(), &[(name, &proxy)]).unwrap())
            .await
            .unwrap();
        let tunnels = tunnels.lock().unwrap().clone();
        assert_eq!(tunnels.len(), 1, "{name}");
        let connect = format!("CONNECT localhost:{} HTTP/1.1\r\n", server.port);
        assert!(tunnels[0].starts_with(&connect), "{}", tunnels[0]);
        let authorization = "proxy-authorization: basic dxnlcjpwyxnz";
        assert!(
            tunnels[0].to_lowercase().contains(authorization),
            "{}",
            tunnels[0]
        );
    }
    let (proxy, tunnels) = proxy().await;
    let env = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "example.com, localhost"),
    ];
    show(&client(server.config(), &env).unwrap()).await.unwrap();
    assert!(tunnels.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_proxy_may_name_a_port() {
    let server = Server::start(&["h2"]).await;
    let port = server.port;
    for (except, tunnelled) in [
        (format!("localhost:{port}"), 0),
        (format!("a.example, LOCALHOST:{port}"), 0),
        ("localhost:1".to_owned(), 1),
        (format!(".localhost:{port}"), 1),
        ("*".to_owned(), 0),
        (format!("127.0.0.1:{port}"), 1),
    ] {
        let (proxy, tunnels) = proxy().await;
        let env = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", &except)];
        show(&client(server.config(), &env).unwrap()).await.unwrap();
        assert_eq!(tunnels.lock().unwrap().len(), tunnelled, "{except}");
    }
}

/// A server that reads a request and answers with `answer`.
async fn answering(answer: &'static str) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = tcp.accept().await {
            let mut head = [0; 4096];
            let _ = client.read(&mut head).await;
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_with_the_variable_that_sets_it() {
    let closed = {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tcp.local_addr().unwrap()
    };
    let long = Box::leak(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000)).into_boxed_str());
    let target = "kms.cn-north-4.myhuaweicloud.com:443";
    let refused = format!("does not connect to {target} (HTTP 403 Forbidden)");
    let cases = [
        (
            closed,
            "user:hunter2@",
            "cannot be reached: Connection refused",
        ),
        (
            answering("").await,
            "user:hunter2@",
            "closed the connection without an answer",
        ),
        (
            answering("HTTP/1.1 403 Forbidden\r\n\r\n").await,
            "user:hunter2@",
            refused.as_str(),
        ),
        (answering("HTTP/1.0 503 \r\n\r\n").await, "", "(HTTP 503)"),
        (
            answering("HTTP/1.1 407 Auth\r\n\r\n").await,
            "",
            "requires authentication (HTTP 407)",
        ),
        (
            answering("HTTP/1.1 407 Auth\r\n\r\n").await,
            "user:hunter2@",
            "does not accept the user and password",
        ),
        (
            answering("SSH-2.0-OpenSSH\r\n\r\n").await,
            "",
            "not that of an HTTP proxy",
        ),
        (
            answering("HTTP/1.1 OK\r\n\r\n").await,
            "",
            "not that of an HTTP proxy",
        ),
        (answering(long).await, "", "not that of an HTTP proxy"),
        (
            answering("HTTP/1.1 200 OK\r\n\r\n").await,
            "user:hunter2@",
            "the connection through the proxy",
        ),
    ];
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let attempts = cases.into_iter().zip(names.iter().cycle());
    // At once, because each is retried with pauses.
    let checks = attempts.map(async |((address, userinfo, expected), name)| {
        let url = format!("http://{userinfo}{address}");
        let cloud = client(CloudConfig::default(), &[(name, &url)]).unwrap();
        let error = show(&cloud).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Connect, "{error}");
        let text = error.to_string();
        for part in [&*address.to_string(), expected, name] {
            assert!(text.contains(part), "{part:?} not in {text}");
        }
        for phrase in [
            "hunter2",
            "user:",
            "os error",
            "tunnel error",
            "client error",
        ] {
            assert!(!text.contains(phrase), "{text}");
        }
    });
    futures::future::join_all(checks).await;
}

#[tokio::test]
async fn a_certificate_behind_a_proxy_names_the_proxy() {
    let server = Server::start(&["h2"]).await;
    let other = Server::start(&["h2"]).await;
    let (proxy, _) = proxy().await;
    let config = CloudConfig {
        ca_bundle: Some(other.ca()),
        ..server.config()
    };
    let cloud = client(config, &[("HTTPS_PROXY", &proxy)]).unwrap();
    let text = show(&cloud).await.unwrap_err().to_string();
    let address = proxy.rsplit('@').next().unwrap();
    for part in [
        "no known certificate authority",
        address,
        "HTTPS_PROXY",
        "--ca-bundle",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn an_unsupported_proxy_is_rejected_without_showing_its_password() {
    for bad in [
        "socks5://user:hunter2@proxy:1080",
        "ftp://hunter2",
        "hunter2 hunter2",
    ] {
        let error = client(CloudConfig::default(), &[("HTTPS_PROXY", bad)]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.contains("HTTPS_PROXY"), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn the_metadata_service_is_never_called_through_a_proxy() {
    let server = Server::start(&["h2"]).await;
    let (proxy, tunnels) = proxy().await;
    let config = CloudConfig {
        metadata_endpoint: Some(format!("https://localhost:{}", server.port)),
        ..server.config()
    };
    let cloud = client(config, &[("ALL_PROXY", &proxy)]).unwrap();
    let credentials = cloud
        .own_credentials(&Env::default(), Some(Source::Agency))
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = credentials.keys(deadline).await.unwrap_err();
    assert!(error.message.contains("unexpected response"), "{error}");
    assert_eq!(
        server.requests().len(),
        2,
        "one for a session token, one for keys"
    );
    assert!(tunnels.lock().unwrap().is_empty());
}

#[tokio::test]
async fn connections_are_reused() {
    let (proxy, tunnels) = proxy().await;
    let server = Server::start(&["h2", "http/1.1"]).await;
    let cloud = client(server.config(), &[("HTTPS_PROXY", &proxy)]).unwrap();
    for _ in 0..5 {
        show(&cloud).await.unwrap();
    }
    assert_eq!(tunnels.lock().unwrap().len(), 1);
}
