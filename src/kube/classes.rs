//! SecretProviderClasses, as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::{KubeError, ask};

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
    pub parameters: Option<BTreeMap<String, String>>,
}

/// SecretProviderClasses of all namespaces, watched.
#[derive(Clone)]
pub struct Classes {
    client: Client,
    store: Store<SecretProviderClass>,
    changes: watch::Receiver<u64>,
}

impl Classes {
    /// Starts the watch; it lives as long as the future that is returned is polled.
    pub fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (reader, writer) = reflector::store();
        let (changed, changes) = watch::channel(0);
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
            .for_each(move |_| {
                changed.send_modify(|count| *count += 1);
                std::future::ready(())
            });
        let classes = Self {
            client,
            store: reader,
            changes,
        };
        (classes, task)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The only error is that the task is gone, which ends the process elsewhere.
        let _ = self.store.wait_until_ready().await;
    }

    /// Moves with every change that the watch sees.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// All of them, as the watch last saw them.
    pub fn all(&self) -> Vec<Arc<SecretProviderClass>> {
        self.store.state()
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
