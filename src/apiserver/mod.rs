//! A stand-in for the Kubernetes API server, in memory, for the demo and the tests.
//!
//! Objects of every kind: create, read, replace, merge-patch, delete, list and watch, with resource
//! versions, conflicts, the `status` subresource, and the field selectors `metadata.name` and
//! `spec.nodeName`. What is different: nothing is validated or defaulted, nobody is refused, and a
//! server-side apply is a merge. The cluster test has a real one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use serde_json::{Value, json};
use tokio::sync::watch;

mod objects;
mod route;
mod watching;

use objects::{Name, Objects};
use route::{Refused, Route};

/// Stands for all resources.
const EVERY: &str = "*";

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server. Clones share it; it lives as long as one of them.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// The newest resource version, for those who watch.
    newest: watch::Sender<u64>,
    /// Moves when all watches are to end.
    epoch: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    /// Status with which requests are answered: for a resource, or for all under [`EVERY`].
    failing: BTreeMap<String, u16>,
    /// Resources of which watchers are not told.
    held: Vec<String>,
    /// Requests by verb and resource.
    requests: BTreeMap<(&'static str, String), usize>,
}

impl ApiServer {
    /// A server without objects.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            newest: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
        }))
    }

    /// A client that reaches it without a connection.
    pub fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object; `resource` is such as `pods` or
    /// `secretproviderclasses.secrets-store.csi.x-k8s.io`.
    pub fn put(&self, resource: &str, object: Value) {
        let name = Name::of(&object);
        let newest = {
            let mut state = self.state();
            let held = state.held.iter().any(|held| held == resource);
            state.objects.put(resource, name, object, !held);
            state.objects.newest()
        };
        self.0.newest.send_replace(newest);
    }

    /// Deletes an object, if it is there.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let newest = {
            let mut state = self.state();
            state.objects.delete(resource, &Name::new(namespace, name));
            state.objects.newest()
        };
        self.0.newest.send_replace(newest);
    }

    /// All objects of a resource, in order of namespaces and names.
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state();
        let found = state.objects.list(resource, None, None);
        found
            .filter_map(|(_, stored)| serde_json::from_slice(&stored.text).ok())
            .collect()
    }

    /// Answers everything with this status from now on, or works again.
    pub fn fail_with(&self, status: Option<u16>) {
        self.fail_resource(EVERY, status);
    }

    /// The same for one resource.
    pub fn fail_resource(&self, resource: &str, status: Option<u16>) {
        let failing = &mut self.state().failing;
        match status {
            Some(status) => failing.insert(resource.to_owned(), status),
            None => failing.remove(resource),
        };
    }

    /// Keeps changes of a resource from those who watch, as a slow server would.
    pub fn hold_watches_of(&self, resource: &str) {
        self.state().held.push(resource.to_owned());
    }

    /// Ends all watches, as a restart does.
    pub fn end_watches(&self) {
        self.0.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets what changed so far: whoever watches has to list again.
    pub fn forget_changes(&self) {
        self.state().objects.forget_changes();
        self.end_watches();
    }

    /// How often a verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`) was asked
    /// for of a resource.
    pub fn requests(&self, verb: &'static str, resource: &str) -> usize {
        let key = (verb, resource.to_owned());
        self.state().requests.get(&key).copied().unwrap_or(0)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Reply {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Refused::bad(error.to_string()).reply(),
        };
        let path = head.uri.path();
        let kind = head.headers.get(http::header::CONTENT_TYPE);
        let is_apply = kind.is_some_and(|kind| kind == "application/apply-patch+yaml");
        let query = head.uri.query().unwrap_or_default();
        let Some(route) = Route::parse(&head.method, path, query, is_apply) else {
            return Refused::new(StatusCode::NOT_FOUND, "NotFound", path.to_owned()).reply();
        };
        {
            let mut state = self.state();
            let key = (route.verb, route.resource.clone());
            *state.requests.entry(key).or_default() += 1;
            let failing = state.failing.get(EVERY);
            if let Some(status) = failing.or_else(|| state.failing.get(&route.resource)) {
                let status = StatusCode::from_u16(*status).unwrap_or_default();
                return Refused::of_status(status, "told to fail").reply();
            }
        }
        if route.verb == "watch" {
            return self.watch(&route).unwrap_or_else(Refused::reply);
        }
        let (answer, newest) = {
            let mut state = self.state();
            let answer = route.run(&mut state.objects, &body);
            (answer, state.objects.newest())
        };
        self.0.newest.send_if_modified(|known| {
            let moved = *known != newest;
            *known = newest;
            moved
        });
        match answer {
            Ok((status, text)) => route::reply(status, text),
            Err(refused) => refused.reply(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ApiServer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiServer")
    }
}

/// The object of an answer that is not one.
fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
        "reason": reason, "message": message, "code": code.as_u16(),
    })
}
