//! The Kubernetes side: what is watched, what is read, and what is written.

use std::path::Path;
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::time::{Instant, timeout_at};

pub mod accounts;
pub mod classes;
pub mod events;
pub mod lease;
pub mod pods;
pub mod revisions;
pub mod usage;

pub use accounts::Accounts;
pub use classes::{Classes, SecretProviderClass, SecretProviderClassSpec};
pub use events::Events;
pub use lease::{Beat, Lease};
pub use pods::Pods;
pub use revisions::{Condition, SecretRevision, SecretRevisionSpec, SecretRevisionStatus};
pub use usage::Usage;

/// One request to the API server, whatever the Mount has left.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why something could not be read from the API server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubeError {
    /// It does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The API server refused.
    #[error(
        "the API server refused to show {what} ({reason}): the provider's ClusterRole must allow get, list and watch of it"
    )]
    Forbidden {
        /// Kind, namespace and name.
        what: String,
        /// The API server's reason.
        reason: String,
    },
    /// No answer, or not one that helps.
    #[error("{what} could not be read from the API server: {reason}")]
    Failed {
        /// Kind, namespace and name.
        what: String,
        /// Why.
        reason: String,
    },
}

impl KubeError {
    fn new(what: &str, error: &kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NotFound(what),
            kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
                Self::Forbidden {
                    what,
                    reason: status.reason.clone(),
                }
            }
            kube::Error::Api(status) => Self::Failed {
                what,
                reason: format!("{} {}", status.code, status.reason),
            },
            other => Self::Failed {
                what,
                reason: other.to_string(),
            },
        }
    }
}

/// Awaits an answer of the API server until `deadline`, at most [`REQUEST_TIMEOUT`].
async fn ask<T>(
    what: &str,
    deadline: Instant,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubeError> {
    let limit = deadline.min(Instant::now() + REQUEST_TIMEOUT);
    match timeout_at(limit, call).await {
        Ok(answer) => answer.map_err(|error| KubeError::new(what, &error)),
        Err(_) => Err(KubeError::Failed {
            what: what.to_owned(),
            reason: "no answer in time".into(),
        }),
    }
}

/// Reads the configuration: the file if one is named, else the pod's own ServiceAccount.
///
/// # Errors
/// Why there is none, for people.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|e| format!("kubeconfig {}: {e}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| format!("kubeconfig {}: {e}", path.display()))?
        }
        None => Config::incluster().map_err(|e| format!("not in a pod of a cluster: {e}"))?,
    };
    // kube's own retries go on for many minutes; a Mount has less, and is repeated by kubelet.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(3));
    Ok(config)
}
