//! The node with the driver and the emulated cloud on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, Config, Credentials, Env, NewSecret, SecretValue,
};
use dew_provider::emulator::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::observe::metrics::CloudMetrics;
use tokio::runtime::Handle;
use tokio::time::Instant;

use dew_provider::driver::csi::{Csi, NAME, Serving};

use super::csi::{Registered, driver_socket, register, stand_in};
use super::kubernetes::{PATIENCE, kubectl, run, tree, until};

/// Where the Service of `emulator.yaml` is.
pub(crate) const CLOUD: &str = "http://10.96.0.80:7780";

/// What serves kubelet.
enum Driver {
    /// The binary that `DRIVER_BIN` names; a process of the node.
    Real,
    StandIn {
        driver: Csi,
        serving: Option<Serving>,
    },
}

pub(crate) struct Node {
    driver: Driver,
    kubelet: PathBuf,
    cloud: Cloud,
    owner: Caller,
    registrar: Option<Registered>,
}

impl Node {
    /// Brings up the driver, tells kubelet of it, and starts the cloud as a pod.
    pub(crate) async fn start() -> Result<Self> {
        let kubelet =
            PathBuf::from(std::env::var("DEW_KUBELET_ROOT").context("not inside a cluster")?);
        let manifests =
            ["crds", "driver", "emulator"].map(|name| tree(&format!("tests/cluster/{name}.yaml")));
        for manifest in &manifests {
            kubectl(&["apply", "-f", &manifest.display().to_string()])?;
        }
        kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd",
            "--all",
        ])?;
        let client = kube::Client::try_default()
            .await
            .context("the Kubernetes client")?;
        let driver = if std::env::var_os("DRIVER_BIN").is_some() {
            Driver::Real
        } else {
            Driver::StandIn {
                driver: stand_in(client),
                serving: None,
            }
        };
        let many = 1000.try_into()?;
        let config = Config {
            csms_endpoint: Some(CLOUD.into()),
            qps: many,
            burst: many,
            ..Config::default()
        };
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let mut node = Self {
            driver,
            cloud: Cloud::new(
                config,
                &Env::default(),
                Clock::system(),
                Jitter::from_system(),
                CloudMetrics::default(),
            )?,
            owner: Caller {
                region: DEMO_REGION.parse()?,
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "the test"),
            },
            registrar: None,
            kubelet,
        };
        node.start_driver()?;
        node.register()?;
        kubectl(&[
            "-n",
            "emulator",
            "wait",
            "--for=condition=Available",
            "--timeout=120s",
            "deployment/emulator",
        ])?;
        // Its pod may be ready before the node's rules lead there.
        let end = Instant::now() + PATIENCE;
        while let Err(error) = node.cloud.list_secrets(&node.owner, deadline()).await {
            anyhow::ensure!(Instant::now() < end, "the cloud: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(node)
    }

    /// As the driver's registrar, which kubelet's refusal ends: it is started again, and so asks anew.
    fn register(&mut self) -> Result<()> {
        until("the driver's registration", || {
            self.registrar = None;
            self.registrar = Some(register(&self.kubelet));
            for _ in 0..20 {
                let names = "jsonpath={.spec.drivers[*].name}";
                if kubectl(&["get", "csinode", "node1", "-o", names])?.contains(NAME) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            anyhow::bail!("kubelet does not know the driver")
        })
    }

    /// kubelet's folder.
    pub(crate) fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self.driver, Driver::Real)
    }

    pub(crate) fn start_driver(&mut self) -> Result<()> {
        match &mut self.driver {
            Driver::Real => run(
                "bash",
                &[
                    &tree("tests/cluster/driver.sh").display().to_string(),
                    &std::env::var("DRIVER_BIN")?,
                ],
                "",
            )
            .map(drop),
            Driver::StandIn { driver, serving } => {
                *serving = Some(driver.serve(&driver_socket(&self.kubelet))?);
                Ok(())
            }
        }
    }

    pub(crate) fn stop_driver(&mut self) -> Result<()> {
        match &mut self.driver {
            Driver::Real => run(
                "bash",
                &["-c", "kill $(cat $DEW_CLUSTER_NODE/driver.pid)"],
                "",
            )
            .map(drop),
            Driver::StandIn { serving, .. } => {
                *serving = None;
                Ok(())
            }
        }?;
        let socket = driver_socket(&self.kubelet);
        until("the driver's end", || {
            anyhow::ensure!(std::os::unix::net::UnixStream::connect(&socket).is_err());
            Ok(())
        })
    }

    /// Creates a secret; the value becomes v1.
    pub(crate) fn create(&self, name: &str, value: SecretValue) -> Result<()> {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value,
        };
        Handle::current().block_on(self.cloud.create_secret(&self.owner, new, deadline()))?;
        Ok(())
    }

    /// Adds a version.
    pub(crate) fn put(&self, name: &str, value: SecretValue) -> Result<()> {
        let made = self
            .cloud
            .create_secret_version(&self.owner, name, value, &[], deadline());
        Handle::current().block_on(made)?;
        Ok(())
    }
}

pub(crate) fn text(value: &str) -> SecretValue {
    SecretValue::Text(value.to_owned().into())
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(45)
}
