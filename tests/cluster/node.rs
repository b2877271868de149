//! The node, with the CSI driver and the emulated cloud on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, NewSecret, SecretValue, Turn,
};
use dew_provider::sim::csi_driver::csi::{Csi, NAME, Serving};
use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::csi::{Registered, driver_socket, register, simulated_driver};
use super::kubernetes::{PATIENCE, kubectl, run, tree, until};

/// The address of the Service in `emulator.yaml`.
pub(crate) const CLOUD: &str = "http://10.96.0.80:7780";

/// The image of `stand_ins.rs`, made by `tests/cluster/test`.
const STAND_INS: &str = "stand-ins";

/// The CSI driver that kubelet uses.
enum Driver {
    /// The binary `DRIVER_BIN`, as a process on the node.
    Real,
    Simulated {
        driver: Csi,
        serving: Option<Serving>,
    },
}

pub(crate) struct Node {
    driver: Driver,
    kubelet: PathBuf,
    csms: Csms,
    owner: Caller,
    registrar: Option<Registered>,
}

impl Node {
    /// Starts the driver, registers it with kubelet, and starts the cloud as a pod.
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
            Driver::Simulated {
                driver: simulated_driver(client),
                serving: None,
            }
        };
        let config = CloudConfig::emulated(CLOUD);
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let cloud = Cloud::new(
            config,
            &Env::default(),
            Clock::system(),
            Jitter::from_system(),
            CloudMetrics::default(),
        )?;
        let mut node = Self {
            driver,
            csms: Csms::new(cloud),
            owner: Caller {
                region: DEMO_REGION.parse()?,
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "test"),
                turn: Turn::default(),
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
        // The pod can be ready before the node routes the Service to it.
        let end = Instant::now() + PATIENCE;
        while let Err(error) = node.csms.list_secrets(&node.owner, deadline()).await {
            anyhow::ensure!(Instant::now() < end, "the cloud: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(node)
    }

    /// Registers the driver, and tries again if kubelet rejects it, as a restarted registrar does.
    fn register(&mut self) -> Result<()> {
        until("the driver's registration", || {
            self.registrar = None;
            self.registrar = Some(register(
                &self.kubelet.join("plugins_registry"),
                &driver_socket(&self.kubelet),
            ));
            for _ in 0..20 {
                if is_registered()? {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            anyhow::bail!("the driver is not registered")
        })
    }

    /// Replaces the driver by a DaemonSet with this `linux.kubeletRootDir`: that of the driver's chart, if
    /// `DRIVER_CHART` names it.
    pub(crate) fn run_driver_in_container(&mut self, root: &Path) -> Result<()> {
        if let Some(registrar) = self.registrar.take() {
            self.stop_driver()?;
            drop(registrar);
            until("the end of the driver's registration", || {
                anyhow::ensure!(!is_registered()?);
                Ok(())
            })?;
        }
        let root = root.to_str().context("not UTF-8")?;
        let manifest = match std::env::var("DRIVER_CHART") {
            Ok(chart) => self.driver_chart(&chart, root)?,
            Err(_) => std::fs::read_to_string(tree("tests/cluster/driver-daemonset.yaml"))?
                .replace("KUBELET_ROOT", root)
                .replace("DRIVER_IMAGE", self.driver_image()),
        };
        run("kubectl", &["apply", "-f", "-"], &manifest)?;
        kubectl(&[
            "-n",
            "kube-system",
            "rollout",
            "status",
            "daemonset",
            "-l",
            "app=secrets-store-csi-driver",
            "--timeout=120s",
        ])?;
        until("the driver's registration", || {
            anyhow::ensure!(is_registered()?);
            Ok(())
        })
    }

    /// The driver's chart, without what this node already has or cannot pull.
    fn driver_chart(&self, chart: &str, root: &str) -> Result<String> {
        let mut arguments = vec!["template", "driver", chart, "--namespace", "kube-system"];
        let image = |of: &str, repository: &str| {
            [
                format!("linux.{of}.repository={repository}"),
                format!("linux.{of}.tag=test"),
            ]
        };
        let mut values = vec![
            format!("linux.kubeletRootDir={root}"),
            "linux.crds.enabled=false".to_owned(),
            "enableSecretRotation=true".to_owned(),
            "rotationPollInterval=1s".to_owned(),
            "syncSecret.enabled=true".to_owned(),
        ];
        values.extend(image("image", self.driver_image()));
        values.extend(image("registrarImage", STAND_INS));
        values.extend(image("livenessProbeImage", STAND_INS));
        for value in &values {
            arguments.extend(["--set", value]);
        }
        run("helm", &arguments, "")
    }

    /// The image of the driver's container, with the tag `test`.
    fn driver_image(&self) -> &'static str {
        if self.is_real() {
            "csi-driver"
        } else {
            STAND_INS
        }
    }

    /// kubelet's root directory.
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
            Driver::Simulated { driver, serving } => {
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
            Driver::Simulated { serving, .. } => {
                *serving = None;
                Ok(())
            }
        }?;
        let socket = driver_socket(&self.kubelet);
        until("the end of the driver", || {
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
        Handle::current().block_on(self.csms.create_secret(&self.owner, new, deadline()))?;
        Ok(())
    }

    /// Adds a version.
    pub(crate) fn put(&self, name: &str, value: SecretValue) -> Result<()> {
        let call = self
            .csms
            .create_secret_version(&self.owner, name, value, &[], deadline());
        Handle::current().block_on(call)?;
        Ok(())
    }
}

/// Whether kubelet has registered the driver.
fn is_registered() -> Result<bool> {
    let names = "jsonpath={.spec.drivers[*].name}";
    Ok(kubectl(&["get", "csinode", "node1", "-o", names])?.contains(NAME))
}

pub(crate) fn text(value: &str) -> SecretValue {
    SecretValue::Text(value.to_owned().into())
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(45)
}
