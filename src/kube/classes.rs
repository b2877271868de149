//! Watches SecretProviderClasses.
//!
//! Every class of the cluster passes here, and anybody may create any number of them. Of those of other providers
//! nothing is kept. Of ours, what authorization and polling need; lists of objects only up to a size, and if that
//! is exceeded, the namespace with the largest ones loses its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::client::{Access, KubeError, request};
use super::trimmed::{ObjectWriter, Shape, Trim, begin, pick, text, trimmed};
use crate::class::objects::MAX_OBJECTS_BYTES;
use crate::class::parameters::{ObjectsHash, PROTECTED};
use crate::util::namespace_sizes::NamespaceSizes;
use crate::util::shares::Shares;

/// Page size of lists. A class has at most [`MAX_OBJECTS_BYTES`] here, and a page is in memory as a whole.
const PAGE_SIZE: u32 = 16;
/// Longest value of a protected parameter, as JSON in bytes. Longer ones are shortened, and differ from any value
/// that means something.
const MAX_PARAMETER: usize = 1024;
/// Most bytes of lists of objects that are kept.
const MAX_KEPT: usize = 6 * 1024 * 1024;
/// Classes that are read at once, and those of one namespace.
const MAX_READS: u32 = 4;
const MAX_READS_PER_NAMESPACE: u32 = 2;

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
    /// Hash of the parameter `objects`, in classes of [`Classes`]. The parameter itself may be missing in these: see
    /// [`SecretProviderClassSpec::objects_are_missing`].
    #[serde(skip)]
    #[schemars(skip)]
    pub objects_hash: Option<ObjectsHash>,
}

impl SecretProviderClassSpec {
    /// Whether the class has a parameter `objects` that was too large to be kept.
    pub fn objects_are_missing(&self) -> bool {
        self.objects_hash.is_some() && self.objects().is_none()
    }

    fn objects(&self) -> Option<&String> {
        self.parameters.as_ref()?.get("objects")
    }
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
        let hash = spec.remove(OBJECTS_HASH).and_then(text);
        Ok(Self {
            provider,
            parameters,
            objects_hash: hash.and_then(|hash| hash.parse().ok()),
        })
    }
}

/// Field with the hash in the JSON of a trimmed class.
const OBJECTS_HASH: &str = "objectsHash";

/// Keeps of a class what [`SecretProviderClassSpec`] has, and parameters only of our own classes.
fn trim(provider_names: &[String]) -> Trim {
    let provider_names = provider_names.to_vec();
    Arc::new(move |json| {
        let [version, kind, metadata, spec] =
            pick(json, ["apiVersion", "kind", "metadata", "spec"]);
        let [provider, parameters] =
            pick(spec.map_or("", RawValue::get), ["provider", "parameters"]);
        let name = text(provider, MAX_PARAMETER);
        let is_ours = provider_names
            .iter()
            .any(|ours| name.as_ref() == Some(ours));
        let mut spec = ObjectWriter::default();
        if is_ours {
            let parameters = parameters.map_or("", RawValue::get);
            let (kept, hash) = trim_parameters(parameters);
            spec = spec.raw("provider", provider).json("parameters", &kept);
            if let Some(hash) = hash {
                spec = spec.json(OBJECTS_HASH, &format!("\"{hash}\""));
            }
        }
        begin([version, kind], metadata, None, None)
            .json("spec", &spec.end())
            .end()
    })
}

fn trim_parameters(json: &str) -> (String, Option<ObjectsHash>) {
    let mut kept = ObjectWriter::default();
    for (key, value) in PROTECTED.iter().zip(pick(json, PROTECTED)) {
        kept = match value {
            Some(value) if value.get().len() > MAX_PARAMETER => kept.json(key, "\"(too long)\""),
            value => kept.raw(key, value),
        };
    }
    let [objects] = pick(json, ["objects"]);
    // Escapes take up to six bytes; a class has at most 1.5 MB.
    let list = text(objects, usize::MAX);
    let hash = list.as_deref().map(ObjectsHash::of);
    if list.is_some_and(|list| list.len() <= MAX_OBJECTS_BYTES) {
        kept = kept.raw("objects", objects);
    }
    (kept.end(), hash)
}

/// Namespace and name of a class.
type ClassName = (String, String);

#[derive(Default)]
struct KnownClasses {
    by_name: HashMap<ClassName, Arc<SecretProviderClass>>,
    /// Bytes of lists of objects.
    sizes: NamespaceSizes,
}

impl KnownClasses {
    fn put(&mut self, mut class: Arc<SecretProviderClass>) {
        self.remove(&class);
        if class.spec.provider.is_none() {
            return; // Another provider's.
        }
        let (namespace, name) = class_name(&class);
        self.sizes.add(&namespace, size_of(&class));
        while self.sizes.total() > MAX_KEPT {
            let Some(largest) = self.sizes.largest().map(str::to_owned) else {
                break;
            };
            if largest == namespace {
                self.sizes.subtract(&namespace, size_of(&class));
                class = without_objects(&class);
                break;
            }
            let of_largest = self
                .by_name
                .iter_mut()
                .filter(|(name, _)| name.0 == largest);
            let Some((_, evicted)) = of_largest.max_by_key(|(_, class)| size_of(class)) else {
                break;
            };
            self.sizes.subtract(&largest, size_of(evicted));
            *evicted = without_objects(evicted);
        }
        self.by_name.insert((namespace, name), class);
    }

    fn remove(&mut self, class: &SecretProviderClass) {
        let name = class_name(class);
        if let Some(old) = self.by_name.remove(&name) {
            self.sizes.subtract(&name.0, size_of(&old));
        }
    }

    /// The same class, if nothing of it changed: a new list then takes no memory twice.
    fn unchanged(&self, class: &SecretProviderClass) -> Option<Arc<SecretProviderClass>> {
        let known = self.by_name.get(&class_name(class))?;
        let is_same = known.metadata.uid == class.metadata.uid && known.spec == class.spec;
        is_same.then(|| Arc::clone(known))
    }
}

fn class_name(class: &SecretProviderClass) -> ClassName {
    (class.namespace().unwrap_or_default(), class.name_any())
}

fn size_of(class: &SecretProviderClass) -> usize {
    class.spec.objects().map_or(0, String::len)
}

fn without_objects(class: &SecretProviderClass) -> Arc<SecretProviderClass> {
    let mut class = class.clone();
    if let Some(parameters) = &mut class.spec.parameters {
        parameters.remove("objects");
    }
    Arc::new(class)
}

/// The SecretProviderClasses of all namespaces. Clones share the watch.
#[derive(Clone)]
pub struct Classes {
    reader: Client,
    reads: Arc<Shares>,
    known: Arc<Mutex<KnownClasses>>,
    ready: watch::Receiver<bool>,
    changes: watch::Receiver<u64>,
}

impl Classes {
    /// Starts the watch, which runs while the returned future is polled.
    ///
    /// Of classes of providers other than `provider_names`, nothing is kept.
    pub fn watch(
        client: Client,
        provider_names: &[String],
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let trim = trim(provider_names);
        let known: Arc<Mutex<KnownClasses>> = Arc::default();
        let (is_ready, ready) = watch::channel(false);
        let (changed, changes) = watch::channel(0);
        let classes = Self {
            reader: trimmed(&client, Shape::Object, Arc::clone(&trim)),
            reads: Arc::new(Shares::new(MAX_READS, MAX_READS_PER_NAMESPACE)),
            known: Arc::clone(&known),
            ready,
            changes,
        };
        let api: Api<SecretProviderClass> = Api::all(trimmed(&client, Shape::Objects, trim));
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let mut fresh = KnownClasses::default();
        let task = watcher(api, config)
            .default_backoff()
            .inspect_err(|error| {
                let error =
                    KubeError::of_watch("secretproviderclasses", "SecretProviderClasses", error);
                warn!(%error, "watch of SecretProviderClasses failed; retrying");
            })
            .for_each(move |event| {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Err(_) => {}
                    Ok(watcher::Event::Init) => fresh = KnownClasses::default(),
                    Ok(watcher::Event::InitApply(class)) => {
                        let same = known.unchanged(&class);
                        fresh.put(same.unwrap_or_else(|| Arc::new(class)));
                    }
                    Ok(watcher::Event::InitDone) => {
                        *known = std::mem::take(&mut fresh);
                        is_ready.send_replace(true);
                    }
                    Ok(watcher::Event::Apply(class)) => known.put(Arc::new(class)),
                    Ok(watcher::Event::Delete(class)) => known.remove(&class),
                }
                drop(known);
                changed.send_modify(|count| *count += 1);
                std::future::ready(())
            });
        (classes, task)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The only error is the end of the watch, which ends the process elsewhere.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// Changes with every event of the watch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// All classes of this provider, as last observed.
    pub fn all(&self) -> Vec<Arc<SecretProviderClass>> {
        self.lock().by_name.values().map(Arc::clone).collect()
    }

    /// A class of this provider, as last observed.
    pub fn observed(&self, namespace: &str, name: &str) -> Option<Arc<SecretProviderClass>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.lock().by_name.get(&name).map(Arc::clone)
    }

    /// Reads a class from the API server; of one of another provider, only its name.
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
        let access = Access {
            verb: "get",
            resource: "secretproviderclasses",
            what: &what,
        };
        let Ok(_turn) = timeout_at(deadline, self.reads.acquire(namespace, 1)).await else {
            return Err(KubeError::failed(access, "timed out"));
        };
        let api: Api<SecretProviderClass> = Api::namespaced(self.reader.clone(), namespace);
        request(access, deadline, api.get(name)).await.map(Arc::new)
    }

    fn lock(&self) -> MutexGuard<'_, KnownClasses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classes")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(namespace: &str, name: &str, spec: Value) -> Arc<SecretProviderClass> {
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": namespace, "name": name, "annotations": {"a": "x"}},
            "spec": spec,
        });
        let trimmed = trim(&["cce".to_owned()])(&class.to_string());
        Arc::new(serde_json::from_str(&trimmed).unwrap())
    }

    fn ours(namespace: &str, name: &str, size: usize) -> Arc<SecretProviderClass> {
        let parameters = json!({"objects": "x".repeat(size), "region": "r", "other": "y"});
        class(
            namespace,
            name,
            json!({"provider": "cce", "parameters": parameters}),
        )
    }

    #[test]
    fn only_what_is_used_is_kept() {
        let kept = ours("a", "b", 10);
        let parameters = kept.spec.parameters.as_ref().unwrap();
        assert_eq!(parameters.keys().collect::<Vec<_>>(), ["objects", "region"]);
        assert_eq!(kept.spec.objects_hash, Some(ObjectsHash::of("xxxxxxxxxx")));
        assert!(kept.metadata.annotations.is_none());
        let other = json!({"provider": "other", "parameters": {"objects": "x"}});
        assert_eq!(
            class("a", "b", other).spec,
            SecretProviderClassSpec::default()
        );

        let large = ours("a", "b", MAX_OBJECTS_BYTES + 1);
        assert!(large.spec.objects_are_missing());
        let long = json!({"provider": "cce", "parameters": {"region": "r".repeat(2_000)}});
        let long = class("a", "b", long);
        assert_eq!(
            long.spec.parameters.as_ref().unwrap()["region"],
            "(too long)"
        );
    }

    #[test]
    fn the_namespace_with_the_largest_lists_loses_its_own() {
        let mut known = KnownClasses::default();
        let greedy = |index: usize| ours("greedy", &index.to_string(), 200_000);
        for index in 0..20 {
            known.put(greedy(index));
        }
        for index in 0..20 {
            known.put(ours("honest", &index.to_string(), 20_000));
        }
        for index in 20..60 {
            known.put(greedy(index));
        }
        // The same again, and others in between, as edits are.
        for index in 0..60 {
            known.put(greedy(index));
            known.put(ours("honest", "0", 20_000 + index));
        }
        assert!(known.sizes.total() <= MAX_KEPT);
        let missing = |namespace: &str| {
            let of_namespace = known.by_name.iter().filter(|(name, _)| name.0 == namespace);
            of_namespace
                .filter(|(_, class)| class.spec.objects_are_missing())
                .count()
        };
        assert_eq!(missing("honest"), 0);
        assert!(missing("greedy") > 20, "{}", missing("greedy"));
        assert_eq!(known.by_name.len(), 80);
        for class in known.by_name.values().cloned().collect::<Vec<_>>() {
            known.remove(&class);
        }
        assert_eq!(known.sizes.total(), 0);
    }
}
