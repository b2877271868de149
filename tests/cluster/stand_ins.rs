//! The containers of the driver's pod. This program is the entrypoint of their image, and the flags of the
//! driver's chart say which of them it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::csi::{register, simulated_driver};

/// Where the registrar's container has kubelet's directory `plugins_registry`.
const REGISTRATION: &str = "/registration";

/// Runs until SIGTERM, which the first process of a container must handle itself.
pub(crate) async fn run(arguments: &[String]) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = stand_in(arguments) => result,
        _ = terminate.recv() => Ok(()),
    }
}

async fn stand_in(arguments: &[String]) -> Result<()> {
    let flag = |name: &str| {
        arguments.iter().find_map(|argument| {
            let value = argument.strip_prefix("--")?.strip_prefix(name)?;
            value.strip_prefix('=')
        })
    };
    let csi = flag("csi-address").map(PathBuf::from);
    if let Some(endpoint) = flag("endpoint") {
        let socket = endpoint.strip_prefix("unix://").context("the endpoint")?;
        driver(Path::new(socket)).await
    } else if let Some(endpoint) = flag("kubelet-registration-path") {
        registrar(&csi.context("--csi-address")?, Path::new(endpoint)).await
    } else if let Some(address) = flag("http-endpoint") {
        liveness_probe(csi.context("--csi-address")?, address).await
    } else {
        bail!("unknown flags: {arguments:?}")
    }
}

async fn driver(socket: &Path) -> Result<()> {
    let client = kube::Client::try_default().await?;
    let _serving = simulated_driver(client).serve(socket)?;
    std::future::pending().await
}

async fn registrar(csi: &Path, endpoint: &Path) -> Result<()> {
    while UnixStream::connect(csi).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let registered = register(Path::new(REGISTRATION), endpoint);
    registered.refused.cancelled().await;
    bail!("kubelet refused the driver")
}

async fn liveness_probe(csi: PathBuf, address: &str) -> Result<()> {
    let probe = move || {
        let csi = csi.clone();
        async move {
            match UnixStream::connect(csi).await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
    };
    let pages = Router::new().route("/healthz", get(probe));
    axum::serve(TcpListener::bind(address).await?, pages).await?;
    Ok(())
}
