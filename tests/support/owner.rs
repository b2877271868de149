//! The owner of the secrets, who changes them while pods use them.

use std::time::Duration;

use ::http::Method;
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, NewSecret, SecretValue, Turn,
};
use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http;
use super::paused_clock::drive;

/// A client of CSMS and of the emulator's control API, with the demo account, which has all permissions.
pub(crate) struct Owner {
    csms: Csms,
    /// As whom, and in which region and project, secrets are created.
    pub(crate) caller: Caller,
    emulator: String,
}

impl Owner {
    pub(crate) fn new(endpoints: CloudConfig, emulator: String, clock: Clock) -> Self {
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let cloud = Cloud::new(endpoints, &env, clock, Jitter::seeded(1), metrics).unwrap();
        Self {
            csms: Csms::new(cloud),
            caller: Caller {
                region: DEMO_REGION.parse().unwrap(),
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "test"),
                turn: Turn::default(),
            },
            emulator,
        }
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(45)
    }

    /// Creates a secret; the value becomes v1.
    pub(crate) async fn create(&self, name: &str, value: impl Into<Bytes>) {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value: value.into().0,
        };
        let call = self.csms.create_secret(&self.caller, new, Self::deadline());
        drive(call).await.unwrap();
    }

    /// Adds a version and returns its ID.
    pub(crate) async fn put(&self, name: &str, value: impl Into<Bytes>, stages: &[&str]) -> String {
        let stages: Vec<String> = stages.iter().map(ToString::to_string).collect();
        let value = value.into().0;
        let call =
            self.csms
                .create_secret_version(&self.caller, name, value, &stages, Self::deadline());
        drive(call).await.unwrap().id
    }

    pub(crate) async fn move_stage(&self, name: &str, stage: &str, version: &str) {
        let call =
            self.csms
                .update_secret_stage(&self.caller, name, stage, version, Self::deadline());
        drive(call).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        let call = self
            .csms
            .delete_secret(&self.caller, name, Self::deadline());
        drive(call).await.unwrap();
    }

    /// Adds a fault rule to the emulator.
    pub(crate) async fn fault(&self, rule: Value) {
        self.control(Method::POST, "faults", &rule.to_string())
            .await;
    }

    pub(crate) async fn clear_faults(&self) {
        self.control(Method::DELETE, "faults", "").await;
    }

    pub(crate) async fn set_state(&self, secret: &str, state: &str) {
        let body = json!({ "state": state }).to_string();
        self.control(Method::PUT, &format!("secrets/{secret}/state"), &body)
            .await;
    }

    /// How often an operation was called.
    pub(crate) async fn calls(&self, operation: &str) -> u64 {
        let calls = self.control(Method::GET, "calls", "").await.json();
        calls["counts"][operation].as_u64().unwrap_or(0)
    }

    /// Resets the counts of calls.
    pub(crate) async fn clear_calls(&self) {
        self.control(Method::DELETE, "calls", "").await;
    }

    /// Calls the emulator's control API.
    pub(crate) async fn control(&self, method: Method, path: &str, body: &str) -> http::Reply {
        let url = format!("{}/_emulator/{path}", self.emulator);
        let reply = drive(http::send(method, &url, &[], body)).await;
        assert!(reply.status < 300, "{reply:?}");
        reply
    }
}

/// A text or binary value.
pub(crate) struct Bytes(SecretValue);

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(SecretValue::Text(text.to_owned().into()))
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self(SecretValue::Text(text.into()))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(SecretValue::Binary(
            dew_provider::util::secret_bytes::SecretBytes::new(bytes.to_vec()),
        ))
    }
}
