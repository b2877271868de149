//! Events of pods and classes: what the driver does not tell.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::clock::Clock;

/// Writes under way at once. What comes beyond is left out: it is in the log too.
const AT_ONCE: usize = 8;
/// Longest text that the API server takes, in bytes.
const MAX_NOTE: usize = 1000;
/// The same of the same object is told once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60 * 60);
/// So many at once of one kind, and one more in each [`REFILL`]: what happens to a secret of all
/// pods should not become an Event of each pod of a large cluster.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(10);

/// Whether something is worth knowing, or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weight {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Writes Events, bounded in number. Clones share the bound.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    client: Client,
    clock: Clock,
    /// Where there is no such variable, Kubernetes wants something all the same.
    instance: String,
    places: Arc<Semaphore>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// When an Event was last written, by object, reason and text.
    last: HashMap<(String, String, String), Instant>,
    /// What is used of [`BURST`], and when it was counted, by weight.
    used: HashMap<Weight, (f64, Instant)>,
}

impl Events {
    /// Events in the name of this program.
    pub fn new(client: Client, clock: Clock) -> Self {
        let name = std::env::var("HOSTNAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
        Self(Arc::new(Inner {
            client,
            clock,
            instance: name,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            told: Mutex::default(),
        }))
    }

    /// Writes one about a pod, beside whoever asks for it.
    pub fn of_pod(
        &self,
        (namespace, name, uid): (&str, &str, &str),
        weight: Weight,
        reason: &str,
        text: String,
    ) {
        let pod = reference("v1", "Pod", namespace, name, uid);
        self.tell(pod, weight, reason, text);
    }

    /// Writes a warning about a SecretProviderClass.
    pub fn of_class(&self, (namespace, name, uid): (&str, &str, &str), reason: &str, text: String) {
        let version = "secrets-store.csi.x-k8s.io/v1";
        let class = reference(version, "SecretProviderClass", namespace, name, uid);
        self.tell(class, Weight::Warning, reason, text);
    }

    fn tell(&self, of: ObjectReference, weight: Weight, reason: &str, mut text: String) {
        text.truncate(text.floor_char_boundary(MAX_NOTE));
        if !self.admit(&of, weight, reason, &text) {
            debug!(reason, text, "an Event was left out");
            return;
        }
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else {
            return;
        };
        let inner = Arc::clone(&self.0);
        let event = inner.event(of, weight, reason, text);
        tokio::spawn(async move {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(inner.client.clone(), &namespace);
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                warn!(%error, "an Event could not be written; it is in this log");
            }
            drop(place);
        });
    }

    /// Whether it is neither a repetition nor too much.
    fn admit(&self, of: &ObjectReference, weight: Weight, reason: &str, text: &str) -> bool {
        let now = Instant::now();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = of.uid.clone().unwrap_or_default();
        let key = (uid, reason.to_owned(), text.to_owned());
        told.last
            .retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        if told.last.contains_key(&key) {
            return false;
        }
        let (used, at) = told.used.entry(weight).or_insert((0.0, now));
        let refilled = now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64();
        (*used, *at) = ((*used - refilled).max(0.0), now);
        if *used + 1.0 > f64::from(BURST) {
            return false;
        }
        *used += 1.0;
        told.last.insert(key, now);
        true
    }
}

impl Inner {
    fn event(&self, of: ObjectReference, weight: Weight, reason: &str, note: String) -> Event {
        let now = self.clock.now();
        let name = of.name.as_deref().unwrap_or_default();
        let kind = match weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                namespace: of.namespace.clone(),
                name: Some(format!(
                    "{name}.{:x}{:04x}",
                    now.as_nanosecond(),
                    fastrand::u16(..)
                )),
                ..ObjectMeta::default()
            },
            action: Some("Mount".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(reason.to_owned()),
            regarding: Some(of),
            reporting_controller: Some(env!("CARGO_PKG_NAME").to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(kind.to_owned()),
            ..Event::default()
        }
    }
}

fn reference(version: &str, kind: &str, namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
