//! The objects, and what happened to them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use serde_json::{Value, json};

/// Changes that are kept for those who watch; who is further behind has to list again.
const KEPT: usize = 10_000;

/// Namespace and name; the namespace is empty for what has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Name {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name }
    }

    pub(super) fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// An object as it is sent.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) text: Bytes,
    pub(super) revision: u64,
    /// `spec.nodeName`, for the selector.
    node: Option<Box<str>>,
}

/// What a list or watch is limited to.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
}

impl Selection {
    pub(super) fn has(&self, name: &Name, stored: &Stored) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        is(&self.namespace, &name.namespace)
            && is(&self.name, &name.name)
            && is(&self.node, stored.node.as_deref().unwrap_or_default())
    }
}

/// A change, for those who watch.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) kind: &'static str,
    pub(super) resource: String,
    pub(super) name: Name,
    pub(super) stored: Stored,
}

#[derive(Default)]
pub(super) struct Objects {
    newest: u64,
    by_resource: HashMap<String, BTreeMap<Name, Stored>>,
    changes: VecDeque<Change>,
    /// The newest change that is not kept any more.
    forgotten: u64,
}

impl Objects {
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn get(&self, resource: &str, name: &Name) -> Option<&Stored> {
        self.by_resource.get(resource)?.get(name)
    }

    /// In order of names, after one of them.
    pub(super) fn list(
        &self,
        resource: &str,
        selection: Option<Selection>,
        after: Option<Name>,
    ) -> impl Iterator<Item = (&Name, &Stored)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_resource
            .get(resource)
            .into_iter()
            .flat_map(move |all| all.range((from.clone(), Bound::Unbounded)))
            .filter(move |(name, stored)| selection.as_ref().is_none_or(|s| s.has(name, stored)))
    }

    /// Changes after `revision`, or `None` where they are not all kept.
    pub(super) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        if revision < self.forgotten {
            return None;
        }
        let from = self.changes.partition_point(|c| c.revision <= revision);
        Some(self.changes.range(from..))
    }

    /// Keeps none of the changes so far, nor the version that those who watch know.
    pub(super) fn forget_changes(&mut self) {
        self.newest += 1;
        self.changes.clear();
        self.forgotten = self.newest;
    }

    /// Puts an object with the next resource version and returns it; `told` to those who watch.
    pub(super) fn put(
        &mut self,
        resource: &str,
        name: Name,
        mut object: Value,
        told: bool,
    ) -> Stored {
        self.newest += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.newest.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.newest));
        }
        let stored = Stored {
            node: object["spec"]["nodeName"].as_str().map(Into::into),
            text: object.to_string().into(),
            revision: self.newest,
        };
        let of_resource = self.by_resource.entry(resource.to_owned()).or_default();
        let old = of_resource.insert(name.clone(), stored.clone());
        if told {
            let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
            self.log(kind, resource, name, stored.clone());
        }
        stored
    }

    pub(super) fn delete(&mut self, resource: &str, name: &Name) -> Option<Stored> {
        let old = self.by_resource.get_mut(resource)?.remove(name)?;
        self.newest += 1;
        self.log("DELETED", resource, name.clone(), old.clone());
        Some(old)
    }

    fn log(&mut self, kind: &'static str, resource: &str, name: Name, stored: Stored) {
        self.changes.push_back(Change {
            revision: self.newest,
            kind,
            resource: resource.to_owned(),
            name,
            stored,
        });
        if self.changes.len() > KEPT
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }
}
