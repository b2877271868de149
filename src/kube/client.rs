//! The connection to the API server.

use std::path::Path;
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::time::{Instant, timeout_at};

/// Limit of one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an object could not be read from the API server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubeError {
    /// It does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The API server denied access.
    #[error(
        "the API server denied access to {what} ({reason}): the provider's ClusterRole must allow get, list and watch"
    )]
    Forbidden {
        /// Kind, namespace and name.
        what: String,
        /// The API server's reason.
        reason: String,
    },
    /// No response, or not a usable one.
    #[error("could not read {what} from the API server: {reason}")]
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

/// Awaits a response of the API server until `deadline`, at most for [`REQUEST_TIMEOUT`].
pub(super) async fn request<T>(
    what: &str,
    deadline: Instant,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubeError> {
    let limit = deadline.min(Instant::now() + REQUEST_TIMEOUT);
    match timeout_at(limit, call).await {
        Ok(response) => response.map_err(|error| KubeError::new(what, &error)),
        Err(_) => Err(KubeError::Failed {
            what: what.to_owned(),
            reason: "timed out".into(),
        }),
    }
}

/// The configuration of the client: from `kubeconfig` if it is set, else from the pod's ServiceAccount.
///
/// # Errors
/// Why it cannot be loaded, for the user.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|e| format!("kubeconfig {}: {e}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|e| format!("kubeconfig {}: {e}", path.display()))?
        }
        None => Config::incluster().map_err(|e| format!("not running in a pod: {e}"))?,
    };
    // kube retries for many minutes by default; a Mount has less time, and kubelet retries it.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(3));
    Ok(config)
}
