//! Parses requests and executes all of them except watches.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::objects::{ObjectName, ObjectSelector, ObjectStore, StoredObject};
use super::reply::StatusError;

/// A parsed request.
pub(super) struct ResourceRoute {
    pub(super) verb: &'static str,
    /// Plural name, followed by the group if it is not the core group.
    pub(super) resource: String,
    pub(super) selector: ObjectSelector,
    name: Option<ObjectName>,
    /// Whether the request is for the `status` subresource.
    of_status: bool,
    /// Whether it is a server-side apply, which creates a missing object.
    is_apply: bool,
    /// Most objects of a list; 0 means no limit.
    limit: usize,
    /// The name after which a list continues.
    page: Option<ObjectName>,
    /// The resource version after which a watch starts.
    pub(super) after: Option<u64>,
}

impl ResourceRoute {
    /// Parses `/api/v1/…` or `/apis/GROUP/VERSION/…`, followed by
    /// `[namespaces/NS/]RESOURCE[/NAME[/status]]`. Returns `None` for anything else.
    pub(super) fn parse(method: &Method, path: &str, query: &str, is_apply: bool) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => None,
            "apis" => Some(parts.next()?),
            _ => return None,
        };
        parts.next()?;
        let mut next = parts.next()?;
        let mut namespace = None;
        if next == "namespaces" {
            namespace = Some(parts.next()?.to_owned());
            next = parts.next()?;
        }
        let resource = match group {
            Some(group) => format!("{next}.{group}"),
            None => next.to_owned(),
        };
        let name = parts
            .next()
            .map(|name| ObjectName::new(namespace.as_deref().unwrap_or_default(), name));
        let of_status = match parts.next() {
            None => false,
            Some("status") => true,
            Some(_) => return None,
        };
        let mut route = Self {
            verb: "get",
            resource,
            selector: ObjectSelector {
                namespace,
                ..ObjectSelector::default()
            },
            name,
            of_status,
            is_apply,
            limit: 0,
            page: None,
            after: None,
        };
        let watching = route.query(query)?;
        route.verb = match (method, &route.name, watching) {
            (&Method::GET, None, true) => "watch",
            (&Method::GET, None, false) => "list",
            (&Method::GET, Some(_), _) => "get",
            (&Method::POST, None, _) => "create",
            (&Method::PUT, Some(_), _) => "update",
            (&Method::PATCH, Some(_), _) => "patch",
            (&Method::DELETE, Some(_), _) => "delete",
            _ => return None,
        };
        Some(route)
    }

    /// Applies the query parameters and returns whether the request is a watch. Returns `None` for
    /// an unsupported selector, because ignoring it would return too many objects.
    fn query(&mut self, query: &str) -> Option<bool> {
        let mut watching = false;
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "watch" => watching = value == "true",
                "limit" => self.limit = value.parse().ok()?,
                "continue" => {
                    let (namespace, name) = value.split_once('/')?;
                    self.page = Some(ObjectName::new(namespace, name));
                }
                "resourceVersion" => self.after = value.parse().ok(),
                "labelSelector" if !value.is_empty() => return None,
                "fieldSelector" => {
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        match part.split_once('=')? {
                            ("metadata.name", name) => self.selector.name = Some(name.to_owned()),
                            ("spec.nodeName", node) => self.selector.node = Some(node.to_owned()),
                            _ => return None,
                        }
                    }
                }
                _ => {}
            }
        }
        Some(watching)
    }

    /// Executes any request except a watch. Returns the status and the JSON body.
    pub(super) fn run(
        &self,
        objects: &mut ObjectStore,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), StatusError> {
        let Some(name) = &self.name else {
            return match self.verb {
                "list" => Ok((StatusCode::OK, self.list(objects))),
                _ => self.create(objects, body),
            };
        };
        let known = objects.get(&self.resource, name).cloned();
        let missing = || {
            let message = format!("{} {:?} not found", self.resource, name.name);
            StatusError::new(StatusCode::NOT_FOUND, "NotFound", message)
        };
        match self.verb {
            "get" => Ok((StatusCode::OK, known.ok_or_else(missing)?.text)),
            "delete" => {
                let old = objects.delete(&self.resource, name).ok_or_else(missing)?;
                Ok((StatusCode::OK, old.text))
            }
            "update" => {
                let known = known.ok_or_else(missing)?;
                let new = parse(body)?;
                self.check_version(&known, &new)?;
                self.store(objects, name, parse(&known.text)?, new, false)
            }
            _ if known.is_none() && self.is_apply => self.create(objects, body),
            _ => {
                let known = known.ok_or_else(missing)?;
                let new = parse(body)?;
                self.check_version(&known, &new)?;
                self.store(objects, name, parse(&known.text)?, new, true)
            }
        }
    }

    fn list(&self, objects: &ObjectStore) -> Bytes {
        let selector = Some(self.selector.clone());
        let found = objects.list(&self.resource, selector, self.page.clone());
        let mut text = Vec::from(&b"{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":["[..]);
        let mut metadata = json!({"resourceVersion": objects.newest().to_string()});
        let mut last: Option<&ObjectName> = None;
        for (index, (name, stored)) in found.enumerate() {
            if self.limit > 0 && index == self.limit {
                let last = last.map(|last| format!("{}/{}", last.namespace, last.name));
                metadata["continue"] = json!(last);
                break;
            }
            if index > 0 {
                text.push(b',');
            }
            text.extend(&stored.text);
            last = Some(name);
        }
        text.extend(format!("],\"metadata\":{metadata}}}").bytes());
        text.into()
    }

    fn create(
        &self,
        objects: &mut ObjectStore,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), StatusError> {
        let mut new = parse(body)?;
        if new["metadata"]["name"].is_null()
            && let Some(prefix) = new["metadata"]["generateName"].as_str()
        {
            new["metadata"]["name"] = json!(format!("{prefix}{}", objects.newest() + 1));
        }
        if let Some(namespace) = &self.selector.namespace {
            new["metadata"]["namespace"] = json!(namespace);
        }
        let name = ObjectName::of(&new);
        if objects.get(&self.resource, &name).is_some() {
            let message = format!("{} {:?} already exists", self.resource, name.name);
            return Err(StatusError::new(
                StatusCode::CONFLICT,
                "AlreadyExists",
                message,
            ));
        }
        let stored = objects.put(&self.resource, name, new, true);
        Ok((StatusCode::CREATED, stored.text))
    }

    fn check_version(&self, known: &StoredObject, new: &Value) -> Result<(), StatusError> {
        match new["metadata"]["resourceVersion"].as_str() {
            Some(version) if version != known.revision.to_string() => {
                let message =
                    "the object has been modified; apply your changes to the latest version";
                Err(StatusError::of_status(StatusCode::CONFLICT, message))
            }
            _ => Ok(()),
        }
    }

    /// Stores the result of an update, or of a merge patch if `merged`, on the object or its
    /// status.
    fn store(
        &self,
        objects: &mut ObjectStore,
        name: &ObjectName,
        known: Value,
        new: Value,
        merged: bool,
    ) -> Result<(StatusCode, Bytes), StatusError> {
        let mut result = if merged || self.of_status {
            known.clone()
        } else {
            new.clone()
        };
        match (self.of_status, merged) {
            (true, true) => merge(&mut result["status"], &new["status"]),
            (true, false) => result["status"] = new["status"].clone(),
            (false, true) => merge(&mut result, &new),
            (false, false) => {}
        }
        result["metadata"]["uid"] = known["metadata"]["uid"].clone();
        result["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
        // As in a real server, an update without a change creates no new resource version.
        if result == known {
            return Ok((StatusCode::OK, result.to_string().into()));
        }
        let stored = objects.put(&self.resource, name.clone(), result, true);
        Ok((StatusCode::OK, stored.text))
    }
}

fn parse(body: &[u8]) -> Result<Value, StatusError> {
    serde_json::from_slice(body).map_err(|error| StatusError::bad(error.to_string()))
}

/// Applies a JSON merge patch (RFC 7396).
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            if let Some(object) = into.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut into[key], value);
        }
    }
}
