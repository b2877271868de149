//! The simulated API server, with helpers that create the objects of the tests.

use std::collections::BTreeMap;

use dew_provider::sim::kubernetes::ApiServer as Server;
use serde_json::{Value, json};

pub(crate) const CLASSES: &str = "secretproviderclasses.secrets-store.csi.x-k8s.io";
pub(crate) const RECORDS: &str = "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io";
pub(crate) const REVISIONS: &str = "secretrevisions.dew-provider.io";
pub(crate) const LEASES: &str = "leases.coordination.k8s.io";

/// The simulated API server.
#[derive(Clone, Default)]
pub(crate) struct ApiServer(pub(crate) Server);

impl ApiServer {
    pub(crate) fn put_class(
        &self,
        namespace: &str,
        name: &str,
        parameters: &BTreeMap<String, String>,
    ) {
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}/{name}")},
            "spec": {"provider": "cce", "parameters": parameters},
        });
        self.0.put(CLASSES, class);
    }

    pub(crate) fn put_account(&self, namespace: &str, name: &str, annotation: Option<&str>) {
        let annotations = annotation.map(|text| json!({"cce.io/dew-resource": text}));
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": namespace, "name": name, "annotations": annotations},
        });
        self.0.put("serviceaccounts", account);
    }

    /// Fails every request with this status; `None` ends that.
    pub(crate) fn set_broken(&self, status: Option<u16>) {
        self.0.fail_with(status);
    }

    /// Withholds changes of SecretProviderClasses from watches.
    pub(crate) fn hold_watch(&self) {
        self.0.hold_watches_of(CLASSES);
    }

    /// All Events written so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.0.list("events.events.k8s.io")
    }

    /// How often a ServiceAccount was read.
    pub(crate) fn account_reads(&self) -> usize {
        self.0.requests("get", "serviceaccounts")
    }
}
