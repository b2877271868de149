//! Watches SecretProviderClasses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::client::{Access, KubeError, request};

/// Page size of lists: an object may have 1.5 MB, and a page is in memory as a whole.
const PAGE_SIZE: u32 = 16;

/// The fields of a SecretProviderClass that a provider reads. The CRD is the driver's, and requires nothing:
/// any JSON is read, because one object that cannot be read would hide those of all namespaces. What is not of
/// the right type counts as not set.
#[derive(CustomResource, Clone, Debug, Default, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "secrets-store.csi.x-k8s.io",
    version = "v1",
    kind = "SecretProviderClass",
    namespaced
)]
pub struct SecretProviderClassSpec {
    /// Name of the provider, by which the driver finds its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the driver passes to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for SecretProviderClassSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An absent field deserializes as an `Option`, but as nothing else.
        let spec: Option<Value> = Option::deserialize(deserializer)?;
        let Some(Value::Object(mut spec)) = spec else {
            return Ok(Self::default());
        };
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let provider = spec.remove("provider").and_then(text);
        let parameters = match spec.remove("parameters") {
            Some(Value::Object(parameters)) => Some(
                parameters
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, text(value)?)))
                    .collect(),
            ),
            _ => None,
        };
        Ok(Self {
            provider,
            parameters,
        })
    }
}

/// The SecretProviderClasses of all namespaces. Clones share the watch.
#[derive(Clone)]
pub struct Classes {
    client: Client,
    store: Store<SecretProviderClass>,
    changes: watch::Receiver<u64>,
}

impl Classes {
    /// Starts the watch, which runs while the returned future is polled.
    ///
    /// Of classes of providers other than `provider_names`, only the names are kept.
    pub fn watch(
        client: Client,
        provider_names: &[String],
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (reader, writer) = reflector::store();
        let (changed, changes) = watch::channel(0);
        let api: Api<SecretProviderClass> = Api::all(client.clone());
        let provider_names = provider_names.to_vec();
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let task = watcher(api, config)
            // Keep only what is used, because every class of the cluster is in memory.
            .modify(move |class| {
                let provider = class.spec.provider.as_deref().unwrap_or_default();
                if !provider_names.iter().any(|name| name == provider) {
                    class.spec.parameters = None;
                }
                class.managed_fields_mut().clear();
                class.annotations_mut().clear();
                class.labels_mut().clear();
            })
            .default_backoff()
            .inspect_err(|error| {
                let error =
                    KubeError::of_watch("secretproviderclasses", "SecretProviderClasses", error);
                warn!(%error, "watch of SecretProviderClasses failed; retrying");
            })
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
        // The only error is the end of the watch, which ends the process elsewhere.
        let _ = self.store.wait_until_ready().await;
    }

    /// Changes with every event of the watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// All classes, as last observed.
    pub fn all(&self) -> Vec<Arc<SecretProviderClass>> {
        self.store.state()
    }

    /// A class, as last observed.
    pub fn observed(&self, namespace: &str, name: &str) -> Option<Arc<SecretProviderClass>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// Reads a class from the API server.
    ///
    /// # Errors
    /// If it does not exist or cannot be read before `deadline`.
    pub async fn read(
        &self,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<SecretProviderClass>, KubeError> {
        let what = format!("SecretProviderClass {namespace}/{name}");
        let api: Api<SecretProviderClass> = Api::namespaced(self.client.clone(), namespace);
        let access = Access {
            verb: "get",
            resource: "secretproviderclasses",
            what: &what,
        };
        request(access, deadline, api.get(name)).await.map(Arc::new)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classes")
    }
}
