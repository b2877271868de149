//! Step 1, request: refuses a volume outside of kubelet's root directory.
//!
//! The driver's container shares one directory of the node with kubelet. If kubelet's root is another one,
//! even through a symbolic link, the driver mounts the volume inside its own container and reports success,
//! and the pod starts with an empty directory. kubelet names its real root in the target path, so a provider
//! that knows the configured one can notice. Source: Huawei Cloud, CCE User Guide, "Differences in kubelet
//! and Runtime Component Configurations Between CCE and the Native Community".

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::error::{MountError, Reason};

/// How long a refusal takes. kubelet tries again half a second later, and removes the volume's directory before,
/// but on the node: in the driver's container it stays. While that directory is younger than the driver's
/// `rotationPollInterval`, which the chart sets to 1s, the driver answers OK without a mount, and the pod would
/// start after all. Sources: driver v1.6.1, nodeserver.go, NodePublishVolume; kubelet,
/// nestedpendingoperations.go.
const REFUSAL_DELAY: Duration = Duration::from_secs(2);
/// Longest path in a message, in characters.
const MAX_SHOWN: usize = 300;

/// kubelet's root directory on the nodes, such as `/var/lib/kubelet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletRoot(PathBuf);

impl KubeletRoot {
    /// Checks that a volume's target path is below this directory. Compares the paths only: the files of the
    /// node are not visible here.
    ///
    /// # Errors
    /// [`Reason::Precondition`], with both paths and the chart values to set, two seconds later.
    pub(super) async fn check(&self, target_path: &str) -> Result<(), MountError> {
        let result = self.compare(target_path);
        if result.is_err() {
            tokio::time::sleep(REFUSAL_DELAY).await;
        }
        result
    }

    fn compare(&self, target_path: &str) -> Result<(), MountError> {
        let target = normalized(target_path);
        if let Some(target) = &target
            && target.starts_with(&self.0)
            && *target != self.0
        {
            return Ok(());
        }
        let likely = match target.as_deref().and_then(root_of) {
            Some(root) => format!(", which seems to be {}", Shown(&root.to_string_lossy())),
            None => String::new(),
        };
        Err(MountError::new(
            Reason::Precondition,
            format!(
                "the volume's target path {} is not below kubelet's root directory {} (--kubelet-root); the driver \
                 may write the files where the pod does not see them: set the chart values kubeletRootDir and \
                 secrets-store-csi-driver.linux.kubeletRootDir to kubelet's --root-dir on the nodes{likely}",
                Shown(target_path),
                Shown(&self.0.to_string_lossy()),
            ),
        ))
    }
}

impl FromStr for KubeletRoot {
    type Err = &'static str;

    /// Takes an absolute path.
    fn from_str(path: &str) -> Result<Self, Self::Err> {
        normalized(path)
            .map(Self)
            .ok_or("must be an absolute path such as /var/lib/kubelet")
    }
}

/// An absolute path without `.`, `..`, repeated and trailing slashes; `None` if `path` is relative.
fn normalized(path: &str) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir => found.push("/"),
            Component::Normal(name) => found.push(name),
            Component::ParentDir => drop(found.pop()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    found.is_absolute().then_some(found)
}

/// The root directory in a target path of kubelet: `ROOT/pods/UID/volumes/kubernetes.io~csi/NAME/mount`.
fn root_of(target: &Path) -> Option<&Path> {
    let is_named = |path: &Path, name: &str| path.file_name().is_some_and(|found| found == name);
    let csi = target.parent()?.parent()?;
    let volumes = csi.parent()?;
    let pods = volumes.parent()?.parent()?;
    let is_kubelets = is_named(target, "mount")
        && is_named(csi, "kubernetes.io~csi")
        && is_named(volumes, "volumes")
        && is_named(pods, "pods");
    is_kubelets.then(|| pods.parent()).flatten()
}

/// A path in a message: quoted, escaped and bounded.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}
