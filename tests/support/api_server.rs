//! The stand-in API server, with what the tests put into it.

use std::collections::BTreeMap;

use dew_provider::apiserver::ApiServer as Server;
use serde_json::{Value, json};

pub(crate) const CLASSES: &str = "secretproviderclasses.secrets-store.csi.x-k8s.io";
pub(crate) const RECORDS: &str = "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io";
pub(crate) const REVISIONS: &str = "secretrevisions.dew-provider.io";
pub(crate) const LEASES: &str = "leases.coordination.k8s.io";

/// The server.
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

    /// Answers everything with this status from now on.
    pub(crate) fn set_broken(&self, status: Option<u16>) {
        self.0.fail_with(status);
    }

    pub(crate) fn hold_watch(&self) {
        self.0.hold_watches_of(CLASSES);
    }

    /// Events that were written, as they were created.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.0.list("events.events.k8s.io")
    }

    pub(crate) fn account_reads(&self) -> usize {
        self.0.requests("get", "serviceaccounts")
    }
}
