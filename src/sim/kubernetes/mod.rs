//! An in-memory stand-in for the Kubernetes API server, for the demo and the tests.
//!
//! It stores objects of any kind and supports create, get, update, merge patch, delete, list and
//! watch, with resource versions, conflicts, the `status` subresource, and the field selectors
//! `metadata.name` and `spec.nodeName`. Unlike a real server, it does not validate, set defaults or
//! check permissions, and treats a server-side apply as a merge patch. The cluster test uses a real
//! server.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

mod objects;
mod reply;
mod route;
mod state;
mod watching;

use objects::ObjectName;
use reply::{HttpReply, StatusError};
use route::ResourceRoute;
use state::{ALL_RESOURCES, ServerShared};

/// A simulated API server. Clones share the same objects.
#[derive(Clone)]
pub struct ApiServer(Arc<ServerShared>);

impl ApiServer {
    /// Creates a server without objects.
    pub fn new() -> Self {
        Self(Arc::new(ServerShared::new()))
    }

    /// Returns a client that calls the server in process.
    pub fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object.
    ///
    /// `resource` is the plural name with its group, such as `pods` or
    /// `secretproviderclasses.secrets-store.csi.x-k8s.io`.
    pub fn put(&self, resource: &str, object: Value) {
        let name = ObjectName::of(&object);
        let newest = {
            let mut state = self.0.state();
            let hidden = state.hidden.iter().any(|hidden| hidden == resource);
            state.objects.put(resource, name, object, !hidden);
            state.objects.newest()
        };
        self.0.newest.send_replace(newest);
    }

    /// Deletes an object, if it exists.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let newest = {
            let mut state = self.0.state();
            state
                .objects
                .delete(resource, &ObjectName::new(namespace, name));
            state.objects.newest()
        };
        self.0.newest.send_replace(newest);
    }

    /// Returns all objects of a resource, ordered by namespace and name.
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.0.state();
        let found = state.objects.list(resource, None, None);
        found
            .filter_map(|(_, stored)| serde_json::from_slice(&stored.text).ok())
            .collect()
    }

    /// Fails all requests with this HTTP status from now on. `None` ends it.
    pub fn fail_with(&self, status: Option<u16>) {
        self.fail_resource(ALL_RESOURCES, status);
    }

    /// Fails all requests for one resource with this HTTP status from now on. `None` ends it.
    pub fn fail_resource(&self, resource: &str, status: Option<u16>) {
        let failing = &mut self.0.state().failing;
        match status {
            Some(status) => failing.insert(resource.to_owned(), status),
            None => failing.remove(resource),
        };
    }

    /// Hides later [`put`](Self::put)s of a resource from watches, as a lagging server does.
    pub fn hold_watches_of(&self, resource: &str) {
        self.0.state().hidden.push(resource.to_owned());
    }

    /// Ends all watches, as a restart of the server does.
    pub fn end_watches(&self) {
        self.0.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Discards all past changes and ends all watches: clients must list again.
    pub fn forget_changes(&self) {
        self.0.state().objects.forget_changes();
        self.end_watches();
    }

    /// Number of requests for a resource so far. `verb` is `get`, `list`, `watch`, `create`,
    /// `update`, `patch` or `delete`.
    pub fn requests(&self, verb: &'static str, resource: &str) -> usize {
        let key = (verb, resource.to_owned());
        self.0.state().requests.get(&key).copied().unwrap_or(0)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> HttpReply {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return StatusError::bad(error.to_string()).reply(),
        };
        let path = head.uri.path();
        let content_type = head.headers.get(http::header::CONTENT_TYPE);
        let is_apply = content_type.is_some_and(|value| value == "application/apply-patch+yaml");
        let query = head.uri.query().unwrap_or_default();
        let Some(route) = ResourceRoute::parse(&head.method, path, query, is_apply) else {
            return StatusError::new(StatusCode::NOT_FOUND, "NotFound", path.to_owned()).reply();
        };
        {
            let mut state = self.0.state();
            let key = (route.verb, route.resource.clone());
            *state.requests.entry(key).or_default() += 1;
            let failing = state.failing.get(ALL_RESOURCES);
            if let Some(status) = failing.or_else(|| state.failing.get(&route.resource)) {
                let status = StatusCode::from_u16(*status).unwrap_or_default();
                return StatusError::of_status(status, "simulated failure").reply();
            }
        }
        if route.verb == "watch" {
            return watching::watch(&self.0, &route).unwrap_or_else(StatusError::reply);
        }
        let (result, newest) = {
            let mut state = self.0.state();
            let result = route.run(&mut state.objects, &body);
            (result, state.objects.newest())
        };
        self.0.newest.send_if_modified(|known| {
            let changed = *known != newest;
            *known = newest;
            changed
        });
        match result {
            Ok((status, text)) => reply::reply(status, text),
            Err(error) => error.reply(),
        }
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
