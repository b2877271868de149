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
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::client::{Access, KubeError, request};
use crate::util::budgets::Budgets;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;
use crate::util::shares::Shares;
use crate::util::text::{cut, escaped};

/// Writes in flight, in all and for one namespace. Further ones wait, and there are no more of them than the
/// budgets admit within the limit of a write.
const MAX_IN_FLIGHT: u32 = 64;
const MAX_IN_FLIGHT_PER_NAMESPACE: u32 = 8;
/// Limit of one write, including its wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest name of an object, in characters. Source: Kubernetes, "Object Names and IDs".
const MAX_NAME: usize = 253;
/// Longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1000;
/// An Event with the same text about the same object is written at most once in this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60 * 60);
/// Events of one [budget](EventReason::budget) at once in a namespace, and one more in each [`REFILL`]: a change of a secret that all
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

    /// The Events that share a budget: those of one type. Revocations have their own, because other failures of
    /// the namespace must not hide them.
    fn budget(self) -> &'static str {
        match self {
            Self::SecretAccessRevoked => self.as_str(),
            _ => self.event_type(),
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
    in_flight: Shares,
    written: Mutex<WrittenEvents>,
}

enum Admission {
    Admitted,
    /// It was written already.
    Repeated,
    OverBudget,
}

struct WrittenEvents {
    /// When an Event was last written, by the hash of its UID, reason and text.
    last: HashMap<u64, Instant>,
    hasher: RandomState,
    /// The budgets of namespaces.
    by_namespace: HashMap<&'static str, Budgets>,
    /// The budgets of this process.
    all: Budgets,
}

impl Default for WrittenEvents {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            hasher: RandomState::new(),
            by_namespace: HashMap::new(),
            all: Budgets::new(NAMESPACES * BURST, NAMESPACES / REFILL.as_secs_f64()),
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
            in_flight: Shares::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_PER_NAMESPACE),
            written: Mutex::default(),
        }))
    }

    /// Writes an Event about a pod, in the background. Returns `false` if it is beyond the bounds.
    pub fn about_pod(&self, pod: EventTarget<'_>, reason: EventReason, note: String) -> bool {
        self.write(reference("v1", "Pod", pod), reason, note)
    }

    /// Writes an Event about a SecretProviderClass, in the background. Returns `false` if it is beyond the bounds.
    pub fn about_class(&self, class: EventTarget<'_>, reason: EventReason, note: String) -> bool {
        let version = "secrets-store.csi.x-k8s.io/v1";
        self.write(
            reference(version, "SecretProviderClass", class),
            reason,
            note,
        )
    }

    fn write(&self, target: ObjectReference, reason: EventReason, note: String) -> bool {
        let note = cut(escaped(&note), MAX_NOTE);
        let namespace = target.namespace.clone().unwrap_or_default();
        match self.admit(&target, reason, &note) {
            Admission::Admitted => {}
            Admission::Repeated => return true,
            Admission::OverBudget => {
                debug!(reason = reason.as_str(), note, "dropped an Event");
                return false;
            }
        }
        let writer = Arc::clone(&self.0);
        let event = writer.event(target, reason, note);
        tokio::spawn(async move {
            let deadline = Instant::now() + WRITE_TIMEOUT;
            let access = Access {
                verb: "create",
                resource: "events",
                what: "an Event",
            };
            let written = async {
                let _turn = timeout_at(deadline, writer.in_flight.acquire(&namespace, 1))
                    .await
                    .map_err(|_| KubeError::failed(access, "timed out"))?;
                let api: Api<Event> = Api::namespaced(writer.client.clone(), &namespace);
                request(access, deadline, api.create(&PostParams::default(), &event)).await
            };
            if let Err(error) = written.await {
                warn!(%error, "could not write an Event");
            }
        });
        true
    }

    /// Whether an Event is neither a repetition nor beyond the bounds.
    fn admit(&self, target: &ObjectReference, reason: EventReason, note: &str) -> Admission {
        let now = Instant::now();
        let mut written = self.0.written();
        let written = &mut *written;
        let key = written.hasher.hash_one((&target.uid, reason, note));
        written
            .last
            .retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
        if written.last.contains_key(&key) {
            return Admission::Repeated;
        }
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let new = || Budgets::new(BURST, 1.0 / REFILL.as_secs_f64());
        let budgets = written.by_namespace.entry(reason.budget());
        if !budgets.or_insert_with(new).take(namespace, 1.0)
            || !written.all.take(reason.budget(), 1.0)
        {
            return Admission::OverBudget;
        }
        written.last.insert(key, now);
        Admission::Admitted
    }
}

impl EventWriter {
    fn written(&self) -> MutexGuard<'_, WrittenEvents> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, target: ObjectReference, reason: EventReason, note: String) -> Event {
        let now = self.clock.now();
        let name = target.name.as_deref().unwrap_or_default();
        let suffix = format!(
            ".{:x}{:04x}",
            now.as_nanosecond(),
            self.jitter.number() & 0xffff
        );
        let name: String = name.chars().take(MAX_NAME - suffix.len()).collect();
        // A part of a name ends with a letter or a digit.
        let name = name.trim_end_matches(['.', '-']);
        Event {
            metadata: ObjectMeta {
                namespace: target.namespace.clone(),
                name: Some(format!("{name}{suffix}")),
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
