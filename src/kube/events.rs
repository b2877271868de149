//! Events of pods: what the driver does not tell of a mount.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Semaphore;
use tracing::warn;

/// Writes under way at once. What comes beyond is left out: it is in the log too.
const AT_ONCE: usize = 8;
/// Longest text that the API server takes, in bytes.
const MAX_NOTE: usize = 1000;

/// Writes Events. The same one of the same pod becomes a count, within six minutes.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    places: Arc<Semaphore>,
}

impl Events {
    /// Events in the name of this program.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: env!("CARGO_PKG_NAME").into(),
            // Where there is no such variable, Kubernetes does without.
            instance: std::env::var("HOSTNAME").ok(),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Writes a warning about a pod, beside whoever asks for it.
    pub fn warn(&self, namespace: &str, pod: &str, uid: &str, reason: &str, mut text: String) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return;
        };
        text.truncate(text.floor_char_boundary(MAX_NOTE));
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(text),
            action: "Mount".to_owned(),
            secondary: None,
        };
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(pod.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &pod).await {
                warn!(%error, "an Event could not be written; it is in this log");
            }
            drop(place);
        });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
