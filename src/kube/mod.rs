//! The Kubernetes side: SecretProviderClasses as they are, and what ServiceAccounts allow.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

pub mod accounts;
pub mod events;

pub use accounts::Accounts;
pub use events::Events;

/// One request to the API server, whatever the Mount has left.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a SecretProviderClass says, as far as a provider reads it. The CRD is the driver's.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "secrets-store.csi.x-k8s.io",
    version = "v1",
    kind = "SecretProviderClass",
    namespaced
)]
pub struct SecretProviderClassSpec {
    /// Name of the provider; the driver finds its socket by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the driver hands to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<std::collections::BTreeMap<String, String>>,
}

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

/// SecretProviderClasses of all namespaces, watched.
#[derive(Clone)]
pub struct Classes {
    client: Client,
    store: Store<SecretProviderClass>,
}

impl Classes {
    /// Starts the watch; it lives as long as the future that is returned is polled.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (reader, writer) = reflector::store();
        let api: Api<SecretProviderClass> = Api::all(client.clone());
        let task = watcher(api, watcher::Config::default())
            // Kept in memory for every class of the cluster: only what is compared.
            .modify(|class| {
                class.managed_fields_mut().clear();
                class.annotations_mut().clear();
                class.labels_mut().clear();
            })
            .default_backoff()
            .inspect_err(|error| warn!(%error, "watch of SecretProviderClasses failed; it goes on"))
            .reflect(writer)
            .for_each(|_| std::future::ready(()));
        (
            Self {
                client,
                store: reader,
            },
            task,
        )
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The only error is that the task is gone, which ends the process elsewhere.
        let _ = self.store.wait_until_ready().await;
    }

    /// The class as the watch last saw it.
    pub fn seen(&self, namespace: &str, name: &str) -> Option<Arc<SecretProviderClass>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The class as it is now.
    pub async fn read(
        &self,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<SecretProviderClass>, KubeError> {
        let what = format!("SecretProviderClass {namespace}/{name}");
        let api: Api<SecretProviderClass> = Api::namespaced(self.client.clone(), namespace);
        ask(&what, deadline, api.get(name)).await.map(Arc::new)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classes")
    }
}
