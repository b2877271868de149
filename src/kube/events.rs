//! Events about pods and SecretProviderClasses, for what the driver does not report.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::client::{Access, KubeError};
use crate::util::budgets::Budgets;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;
use crate::util::text::{cut, escaped};

/// Maximum number of writes in flight, in all and for one namespace. Further Events are dropped; the log
/// contains them too.
const MAX_IN_FLIGHT: usize = 64;
const MAX_IN_FLIGHT_PER_NAMESPACE: usize = 8;
/// Longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1000;
/// An Event with the same text about the same object is written at most once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60 * 60);
/// Events of one type at once in a namespace, and one more in each [`REFILL`]: a change of a secret that all
/// pods use must not become an Event for each pod of a large cluster, and the failures of one tenant must not
/// use up what others need.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(10);
/// This many namespaces can use up their budgets at once.
const NAMESPACES: f64 = 8.0;

/// Why an Event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// A new version reached a volume.
    SecretRotated,
    /// A volume cannot follow a change, or a class is invalid.
    SecretRotationFailed,
    /// A pod received a version that could not be confirmed.
    SecretNotConfirmed,
    /// The ServiceAccount of a mounted volume no longer lists its secrets.
    SecretAccessRevoked,
}

impl EventReason {
    /// As in the Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretRotated => "SecretRotated",
            Self::SecretRotationFailed => "SecretRotationFailed",
            Self::SecretNotConfirmed => "SecretNotConfirmed",
            Self::SecretAccessRevoked => "SecretAccessRevoked",
        }
    }

    /// The Event's type.
    fn event_type(self) -> &'static str {
        match self {
            Self::SecretRotated => "Normal",
            Self::SecretRotationFailed | Self::SecretNotConfirmed | Self::SecretAccessRevoked => {
                "Warning"
            }
        }
    }
}

/// The object that an Event is about.
#[derive(Clone, Copy, Debug)]
pub struct EventTarget<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

/// Writes Events, at a bounded rate. Clones share the bound.
#[derive(Clone)]
pub struct Events(Arc<EventWriter>);

struct EventWriter {
    client: Client,
    clock: Clock,
    jitter: Jitter,
    /// `reportingInstance`, which Kubernetes requires.
    instance: String,
    permits: Arc<Semaphore>,
    written: Mutex<WrittenEvents>,
}

struct WrittenEvents {
    /// When an Event was last written, by the hash of its UID, reason and text.
    last: HashMap<u64, Instant>,
    hasher: RandomState,
    /// The budgets of namespaces, by type.
    by_namespace: HashMap<&'static str, Budgets>,
    /// The budgets of this process, by type.
    all: Budgets,
    in_flight: HashMap<String, usize>,
}

impl Default for WrittenEvents {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            hasher: RandomState::new(),
            by_namespace: HashMap::new(),
            all: Budgets::new(NAMESPACES * BURST, NAMESPACES / REFILL.as_secs_f64()),
            in_flight: HashMap::new(),
        }
    }
}

impl Events {
    /// A writer; the variable `HOSTNAME` of `env` is the reporting instance.
    pub fn new(client: Client, clock: Clock, jitter: Jitter, env: &Env) -> Self {
        let instance = env.get("HOSTNAME").unwrap_or(env!("CARGO_PKG_NAME"));
        Self(Arc::new(EventWriter {
            client,
            clock,
            jitter,
            instance: instance.to_owned(),
            permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            written: Mutex::default(),
        }))
    }

    /// Writes an Event about a pod, in the background.
    pub fn about_pod(&self, pod: EventTarget<'_>, reason: EventReason, note: String) {
        self.write(reference("v1", "Pod", pod), reason, note);
    }

    /// Writes an Event about a SecretProviderClass, in the background.
    pub fn about_class(&self, class: EventTarget<'_>, reason: EventReason, note: String) {
        let version = "secrets-store.csi.x-k8s.io/v1";
        self.write(
            reference(version, "SecretProviderClass", class),
            reason,
            note,
        );
    }

    fn write(&self, target: ObjectReference, reason: EventReason, note: String) {
        let note = cut(escaped(&note), MAX_NOTE);
        let namespace = target.namespace.clone().unwrap_or_default();
        let Ok(permit) = Arc::clone(&self.0.permits).try_acquire_owned() else {
            return;
        };
        if !self.admit(&target, reason, &note) {
            debug!(reason = reason.as_str(), note, "dropped an Event");
            return;
        }
        let writer = Arc::clone(&self.0);
        let event = writer.event(target, reason, note);
        tokio::spawn(async move {
            let api: Api<Event> = Api::namespaced(writer.client.clone(), &namespace);
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                let access = Access {
                    verb: "create",
                    resource: "events",
                    what: "an Event",
                };
                let error = KubeError::new(access, &error);
                warn!(%error, "could not write an Event");
            }
            let mut written = writer.written();
            if let Some(count) = written.in_flight.get_mut(&namespace) {
                *count -= 1;
                if *count == 0 {
                    written.in_flight.remove(&namespace);
                }
            }
            drop(permit);
        });
    }

    /// Whether an Event is neither a repetition nor beyond the bounds. Counts it as in flight if so.
    fn admit(&self, target: &ObjectReference, reason: EventReason, note: &str) -> bool {
        let now = Instant::now();
        let mut written = self.0.written();
        let written = &mut *written;
        let key = written.hasher.hash_one((&target.uid, reason, note));
        written
            .last
            .retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        if written.last.contains_key(&key) {
            return false;
        }
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let in_flight = written.in_flight.get(namespace).copied().unwrap_or(0);
        let new = || Budgets::new(BURST, 1.0 / REFILL.as_secs_f64());
        let budgets = written.by_namespace.entry(reason.event_type());
        if in_flight >= MAX_IN_FLIGHT_PER_NAMESPACE
            || !budgets.or_insert_with(new).take(namespace, 1.0)
            || !written.all.take(reason.event_type(), 1.0)
        {
            return false;
        }
        written
            .in_flight
            .insert(namespace.to_owned(), in_flight + 1);
        written.last.insert(key, now);
        true
    }
}

impl EventWriter {
    fn written(&self) -> MutexGuard<'_, WrittenEvents> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, target: ObjectReference, reason: EventReason, note: String) -> Event {
        let now = self.clock.now();
        let name = target.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                namespace: target.namespace.clone(),
                name: Some(format!(
                    "{name}.{:x}{:04x}",
                    now.as_nanosecond(),
                    self.jitter.number() & 0xffff
                )),
                ..ObjectMeta::default()
            },
            action: Some("Mount".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(reason.as_str().to_owned()),
            regarding: Some(target),
            reporting_controller: Some(env!("CARGO_PKG_NAME").to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(reason.event_type().to_owned()),
            ..Event::default()
        }
    }
}

fn reference(version: &str, kind: &str, target: EventTarget<'_>) -> ObjectReference {
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(target.namespace.to_owned()),
        name: Some(target.name.to_owned()),
        uid: Some(target.uid.to_owned()),
        ..ObjectReference::default()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
