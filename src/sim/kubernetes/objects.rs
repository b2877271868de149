//! The stored objects and their recent changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use serde_json::{Value, json};

/// Changes kept for watches. A client that is further behind must list again.
const MAX_CHANGES: usize = 10_000;

/// Namespace and name of an object. The namespace of cluster-scoped objects is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectName {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name }
    }

    pub(super) fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// An object in its serialized form.
#[derive(Clone)]
pub(super) struct StoredObject {
    /// The object as JSON.
    pub(super) text: Bytes,
    pub(super) revision: u64,
    /// `spec.nodeName`, for the field selector.
    node: Option<Box<str>>,
}

/// Which objects a list or watch includes. `None` matches all.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectSelector {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
}

impl ObjectSelector {
    pub(super) fn matches(&self, name: &ObjectName, stored: &StoredObject) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        is(&self.namespace, &name.namespace)
            && is(&self.name, &name.name)
            && is(&self.node, stored.node.as_deref().unwrap_or_default())
    }
}

/// A change of an object, as sent to watches.
#[derive(Clone)]
pub(super) struct ObjectChange {
    pub(super) revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) kind: &'static str,
    pub(super) resource: String,
    pub(super) name: ObjectName,
    pub(super) stored: StoredObject,
}

#[derive(Default)]
pub(super) struct ObjectStore {
    newest: u64,
    by_resource: HashMap<String, BTreeMap<ObjectName, StoredObject>>,
    changes: VecDeque<ObjectChange>,
    /// Resource version of the newest change that was discarded.
    forgotten: u64,
}

impl ObjectStore {
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn get(&self, resource: &str, name: &ObjectName) -> Option<&StoredObject> {
        self.by_resource.get(resource)?.get(name)
    }

    /// Objects of a resource ordered by name, starting behind `after`.
    pub(super) fn list(
        &self,
        resource: &str,
        selector: Option<ObjectSelector>,
        after: Option<ObjectName>,
    ) -> impl Iterator<Item = (&ObjectName, &StoredObject)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_resource
            .get(resource)
            .into_iter()
            .flat_map(move |all| all.range((from.clone(), Bound::Unbounded)))
            .filter(move |(name, stored)| selector.as_ref().is_none_or(|s| s.matches(name, stored)))
    }

    /// Returns the changes after `revision`, or `None` if some of them were discarded.
    pub(super) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &ObjectChange>> {
        if revision < self.forgotten {
            return None;
        }
        let from = self.changes.partition_point(|c| c.revision <= revision);
        Some(self.changes.range(from..))
    }

    /// Discards all changes, and increments the resource version so that every watch is behind.
    pub(super) fn forget_changes(&mut self) {
        self.newest += 1;
        self.changes.clear();
        self.forgotten = self.newest;
    }

    /// Stores an object with the next resource version and returns it. Watches see the change only
    /// with `notify`.
    pub(super) fn put(
        &mut self,
        resource: &str,
        name: ObjectName,
        mut object: Value,
        notify: bool,
    ) -> StoredObject {
        self.newest += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.newest.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.newest));
        }
        let stored = StoredObject {
            node: object["spec"]["nodeName"].as_str().map(Into::into),
            text: object.to_string().into(),
            revision: self.newest,
        };
        let of_resource = self.by_resource.entry(resource.to_owned()).or_default();
        let old = of_resource.insert(name.clone(), stored.clone());
        if notify {
            let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
            self.log(kind, resource, name, stored.clone());
        }
        stored
    }

    pub(super) fn delete(&mut self, resource: &str, name: &ObjectName) -> Option<StoredObject> {
        let old = self.by_resource.get_mut(resource)?.remove(name)?;
        self.newest += 1;
        self.log("DELETED", resource, name.clone(), old.clone());
        Some(old)
    }

    fn log(&mut self, kind: &'static str, resource: &str, name: ObjectName, stored: StoredObject) {
        self.changes.push_back(ObjectChange {
            revision: self.newest,
            kind,
            resource: resource.to_owned(),
            name,
            stored,
        });
        if self.changes.len() > MAX_CHANGES
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }
}
