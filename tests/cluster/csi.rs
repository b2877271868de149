//! The simulated CSI driver on a real node, with tmpfs mounts, and a registrar for either driver.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dew_provider::node::socket;
use dew_provider::sim::csi_driver::csi::{Csi, NAME};
use dew_provider::sim::csi_driver::{Driver, DriverConfig, Mounts};
use dew_provider::util::clock::Clock;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

#[allow(missing_docs, unreachable_pub)]
mod registration {
    tonic::include_proto!("pluginregistration");
}

use registration::registration_server::{Registration, RegistrationServer};
use registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

const NODE: &str = "node1";

/// Keeps the registrar running; dropping it stops the server and removes its socket.
pub(crate) struct Registered {
    /// Cancelled if kubelet refuses the driver.
    pub(crate) refused: CancellationToken,
    _stop: DropGuard,
}

/// The driver's socket, below kubelet's root directory.
pub(crate) fn driver_socket(kubelet: &Path) -> PathBuf {
    kubelet.join("plugins/csi-secrets-store/csi.sock")
}

/// Registers the driver, whose socket kubelet finds at `endpoint`, in kubelet's directory `plugins_registry`.
/// Replaces node-driver-registrar, which is available only as an image.
pub(crate) fn register(plugins_registry: &Path, endpoint: &Path) -> Registered {
    let refused = CancellationToken::new();
    let registrar = Registrar {
        endpoint: endpoint.display().to_string(),
        refused: refused.clone(),
    };
    let path = plugins_registry.join(format!("{NAME}-reg.sock"));
    let stop = CancellationToken::new();
    let server = Server::builder()
        .add_service(RegistrationServer::new(registrar))
        .serve_with_incoming_shutdown(
            socket::bind(&path).unwrap().incoming(),
            stop.clone().cancelled_owned(),
        );
    tokio::spawn(server);
    Registered {
        refused,
        _stop: stop.drop_guard(),
    }
}

struct Registrar {
    endpoint: String,
    refused: CancellationToken,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = status.into_inner();
        if !status.plugin_registered {
            println!(
                "cluster: kubelet did not register the driver: {}",
                status.error
            );
            self.refused.cancel();
        }
        Ok(Response::new(RegistrationStatusResponse::default()))
    }
}

/// The simulated driver. It does not sync Secrets.
pub(crate) fn simulated_driver(kube: kube::Client) -> Csi {
    let config = DriverConfig {
        rotation_poll_interval: Duration::from_secs(1),
        ..DriverConfig::new("/var/run/secrets-store-csi-providers")
    };
    let driver = Driver::with_mounts(config, Clock::system(), Box::new(Tmpfs));
    Csi::new(Arc::new(driver), kube, NODE)
}

/// Mounts volumes as the real driver does, with `mount` and `umount`.
struct Tmpfs;

impl Tmpfs {
    fn run(program: &str, arguments: &[&str], target: &Path) -> io::Result<()> {
        let output = Command::new(program).args(arguments).arg(target).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    fn is_mount_point(target: &Path) -> io::Result<bool> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        Ok(table.lines().any(|line| {
            line.split(' ')
                .nth(4)
                .is_some_and(|at| Path::new(at) == target)
        }))
    }
}

impl Mounts for Tmpfs {
    fn mount(&self, target: &Path) -> io::Result<()> {
        Self::run("mount", &["-t", "tmpfs", "tmpfs"], target)
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        if Self::is_mount_point(target)? {
            return Self::run("umount", &[], target);
        }
        Ok(())
    }

    fn is_mounted(&self, target: &Path) -> bool {
        Self::is_mount_point(target).unwrap_or_default()
    }
}
