//! From a request to what it does.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::objects::{Name, Objects, Selection, Stored};
use super::{Reply, status};

/// What a request asks for.
pub(super) struct Route {
    pub(super) verb: &'static str,
    /// `pods`, or with its group.
    pub(super) resource: String,
    pub(super) selection: Selection,
    name: Option<Name>,
    /// Whether only the `status` is meant.
    of_status: bool,
    /// Whether what is missing is made.
    is_apply: bool,
    /// Most objects of a list; no limit at 0.
    limit: usize,
    /// The name after which a list goes on.
    page: Option<Name>,
    /// The resource version after which a watch begins.
    pub(super) after: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refused {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

impl Refused {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
        }
    }

    pub(super) fn bad(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn of_status(code: StatusCode, message: &str) -> Self {
        let reason = match code.as_u16() {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            _ => "InternalError",
        };
        Self::new(code, reason, message.to_owned())
    }

    pub(super) fn reply(self) -> Reply {
        let text = status(self.code, self.reason, &self.message).to_string();
        reply(self.code, text.into())
    }
}

pub(super) fn reply(code: StatusCode, text: Bytes) -> Reply {
    let body = Full::new(text).map_err(|never: Infallible| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, json);
    reply
}

impl Route {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`, then `[namespaces/NS/]RESOURCE[/NAME[/status]]`.
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
            .map(|name| Name::new(namespace.as_deref().unwrap_or_default(), name));
        let of_status = match parts.next() {
            None => false,
            Some("status") => true,
            Some(_) => return None,
        };
        let mut route = Self {
            verb: "get",
            resource,
            selection: Selection {
                namespace,
                ..Selection::default()
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

    /// Takes in the parameters; returns whether it is a watch. `None` for a selector that is not
    /// known: to ignore it would show too much.
    fn query(&mut self, query: &str) -> Option<bool> {
        let mut watching = false;
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "watch" => watching = value == "true",
                "limit" => self.limit = value.parse().ok()?,
                "continue" => {
                    let (namespace, name) = value.split_once('/')?;
                    self.page = Some(Name::new(namespace, name));
                }
                "resourceVersion" => self.after = value.parse().ok(),
                "labelSelector" if !value.is_empty() => return None,
                "fieldSelector" => {
                    for part in value.split(',').filter(|part| !part.is_empty()) {
                        match part.split_once('=')? {
                            ("metadata.name", name) => self.selection.name = Some(name.to_owned()),
                            ("spec.nodeName", node) => self.selection.node = Some(node.to_owned()),
                            _ => return None,
                        }
                    }
                }
                _ => {}
            }
        }
        Some(watching)
    }

    pub(super) fn run(
        &self,
        objects: &mut Objects,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes), Refused> {
        let Some(name) = &self.name else {
            return match self.verb {
                "list" => Ok((StatusCode::OK, self.list(objects))),
                _ => self.create(objects, body),
            };
        };
        let known = objects.get(&self.resource, name).cloned();
        let missing = || {
            let message = format!("{} {:?} not found", self.resource, name.name);
            Refused::new(StatusCode::NOT_FOUND, "NotFound", message)
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

    fn list(&self, objects: &Objects) -> Bytes {
        let selection = Some(self.selection.clone());
        let found = objects.list(&self.resource, selection, self.page.clone());
        let mut text = Vec::from(&b"{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":["[..]);
        let mut metadata = json!({"resourceVersion": objects.newest().to_string()});
        let mut last: Option<&Name> = None;
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

    fn create(&self, objects: &mut Objects, body: &[u8]) -> Result<(StatusCode, Bytes), Refused> {
        let mut new = parse(body)?;
        if new["metadata"]["name"].is_null()
            && let Some(prefix) = new["metadata"]["generateName"].as_str()
        {
            new["metadata"]["name"] = json!(format!("{prefix}{}", objects.newest() + 1));
        }
        if let Some(namespace) = &self.selection.namespace {
            new["metadata"]["namespace"] = json!(namespace);
        }
        let name = Name::of(&new);
        if objects.get(&self.resource, &name).is_some() {
            let message = format!("{} {:?} already exists", self.resource, name.name);
            return Err(Refused::new(StatusCode::CONFLICT, "AlreadyExists", message));
        }
        let stored = objects.put(&self.resource, name, new, true);
        Ok((StatusCode::CREATED, stored.text))
    }

    fn check_version(&self, known: &Stored, new: &Value) -> Result<(), Refused> {
        match new["metadata"]["resourceVersion"].as_str() {
            Some(version) if version != known.revision.to_string() => {
                let message =
                    "the object has been modified; apply your changes to the latest version";
                Err(Refused::of_status(StatusCode::CONFLICT, message))
            }
            _ => Ok(()),
        }
    }

    /// Puts what a change leaves: the whole, or merged with what is there; all of it or the status.
    fn store(
        &self,
        objects: &mut Objects,
        name: &Name,
        known: Value,
        new: Value,
        merged: bool,
    ) -> Result<(StatusCode, Bytes), Refused> {
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
        // What changes nothing is not told to anybody.
        if result == known {
            return Ok((StatusCode::OK, result.to_string().into()));
        }
        let stored = objects.put(&self.resource, name.clone(), result, true);
        Ok((StatusCode::OK, stored.text))
    }
}

fn parse(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::bad(error.to_string()))
}

/// RFC 7396.
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
