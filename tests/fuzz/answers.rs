//! Answers of the cloud and of the API server, for the fuzz targets and the property tests: none may panic, and
//! what comes of it is bounded.
#![allow(dead_code)] // each target uses one of them

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dew_provider::class::objects::MAX_OBJECTS_BYTES;
use dew_provider::cloud::{
    AccessKeys, ApiError, Caller, Cloud, CloudConfig, Credentials, Csms, Dial, Socket,
};
use dew_provider::kube::Classes;
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use kube::client::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};

/// Longest error, in bytes.
const MAX_ERROR: usize = 8 * 1024;
/// Some certificate, so that the system's are not read each time.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIUKrAz+pqxt07CyQbsjiNdgvilrn0wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAgFw0yNjExMjYwNTEzNTBaGA8yMTI2MTEwMjA1MTM1MFow
DDEKMAgGA1UEAwwBeDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABO31kwjnsvAa
DIwqeIPwEBdQbVgrxGT8Cta9sHx8Z7gMIRCnlJne8STmfIlwAYdfAJX18kYFXtOq
oKvPZneqP62jUzBRMB0GA1UdDgQWBBT4dr/+ASb/URSAmAJGqbJRXY1HkzAfBgNV
HSMEGDAWgBT4dr/+ASb/URSAmAJGqbJRXY1HkzAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0cAMEQCIEPJJ57PwESXvvJiqKcM8JHdE1u8CxmvOTTgD+2nX3Oq
AiA9GfVjEc9lFX/hI6Ibw8c6J5/NKBGubGkqDoX5HcVjDw==
-----END CERTIFICATE-----
";

/// Answers calls of CSMS. The first byte chooses the status.
pub(crate) fn csms(data: &[u8]) {
    let keys = AccessKeys::new("access", "secret", None, None);
    let credentials = Credentials::fixed(keys, "the fuzzer");
    call(data, Some("project"), |_| credentials);
}

/// Answers the look-up of a project in IAM, and what follows it.
pub(crate) fn iam(data: &[u8]) {
    let keys = AccessKeys::new("access", "secret", None, None);
    let credentials = Credentials::fixed(keys, "the fuzzer");
    call(data, None, |_| credentials);
}

/// Answers the metadata service's calls for keys, and what follows them.
pub(crate) fn metadata(data: &[u8]) {
    call(data, Some("project"), |cloud| {
        let own = cloud.own_credentials(&Env::default(), None);
        own.expect("nothing is set")
    });
}

fn call(data: &[u8], project: Option<&str>, credentials: impl FnOnce(&Cloud) -> Credentials) {
    const STATUSES: [u16; 12] = [200, 200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 503];
    let (first, body) = data.split_first().unwrap_or((&0, &[]));
    let status = STATUSES[usize::from(*first) % STATUSES.len()];
    let body = Bytes::copy_from_slice(body);
    run(async {
        let dial: Dial = Arc::new(move |_| {
            let (client, server) = tokio::io::duplex(64 * 1024);
            tokio::spawn(answer(server, status, body.clone()));
            Box::pin(async { Ok(Socket::new(client)) })
        });
        let config = CloudConfig {
            ca_bundle: Some(certificate()),
            ..CloudConfig::emulated("http://cloud.example")
        };
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().expect("a time"));
        let cloud = Cloud::with_dial(config, &env, clock, Jitter::seeded(1), metrics, dial);
        let cloud = cloud.expect("a client");
        let caller = Caller {
            region: "cn-north-4".parse().expect("a region"),
            project: project.map(Into::into),
            credentials: credentials(&cloud),
            turn: dew_provider::cloud::Turn::default(),
        };
        let csms = Csms::new(cloud);
        let deadline = || Instant::now() + Duration::from_secs(20);
        for id in ["latest", "v1"] {
            let version = csms.show_secret_version(&caller, "name", id, deadline());
            match version.await {
                Ok(version) => {
                    let id = &version.metadata.id;
                    assert!(id.len() <= 64 && !id.contains(char::is_control), "{id:?}");
                    let name = &version.metadata.secret_name;
                    assert!(name.is_empty() || name == "name", "{name:?}");
                }
                Err(error) => check(&error),
            }
        }
        match csms.list_secret_versions(&caller, "name", deadline()).await {
            Ok(versions) => {
                for version in versions {
                    assert!(version.id.len() <= 64, "{:?}", version.id);
                }
            }
            Err(error) => check(&error),
        }
        let stage = csms.show_secret_stage(&caller, "name", "STAGE", deadline());
        match stage.await {
            Ok(stage) => assert!(stage.version_id.len() <= 64, "{:?}", stage.version_id),
            Err(error) => check(&error),
        }
    });
}

fn check(error: &ApiError) {
    let text = error.to_string();
    assert!(text.len() <= MAX_ERROR, "{} bytes: {text:.200}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Answers one request on a connection.
async fn answer(mut stream: DuplexStream, status: u16, body: Bytes) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // The client may have hung up.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
}

fn certificate() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let name = format!("dew-provider-fuzz-{}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, CERTIFICATE).expect("written");
        path
    });
    path.clone()
}

/// Answers the list of SecretProviderClasses, and the watch that follows.
pub(crate) fn classes(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let requests = Arc::new(AtomicUsize::new(0));
    run(async {
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let (data, requests) = (data.clone(), Arc::clone(&requests));
            async move {
                if requests.fetch_add(1, Ordering::Relaxed) >= 4 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(http::Response::new(Body::from(data.to_vec())))
            }
        });
        let client = kube::Client::new(service, "default");
        let (classes, watch) = Classes::watch(client, &["cce".to_owned()]);
        let _ = timeout(Duration::from_secs(20), watch).await;
        for class in classes.all() {
            let parameters = class.spec.parameters.iter().flatten();
            for (name, value) in parameters {
                let most = if name == "objects" {
                    MAX_OBJECTS_BYTES
                } else {
                    1024
                };
                assert!(value.len() <= most, "{name}: {}", value.len());
            }
            assert_eq!(class.spec.provider.as_deref(), Some("cce"));
        }
    });
}

/// Runs without waiting for time to pass.
fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(work);
}
