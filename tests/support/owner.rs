//! The owner of the secrets, who changes them while pods have them.

use std::time::Duration;

use ::http::Method;
use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{
    self, AccessKeys, Caller, Cloud, Credentials, Env, NewSecret, SecretValue,
};
use dew_provider::emulator::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::observe::metrics::CloudMetrics;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http;
use super::still::hurry;

/// With the emulator's demo account, which may do everything.
pub(crate) struct Owner {
    cloud: Cloud,
    /// Who makes the secrets, and where.
    pub(crate) caller: Caller,
    emulator: String,
}

impl Owner {
    pub(crate) fn new(endpoints: cloud::Config, emulator: String, clock: Clock) -> Self {
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        Self {
            cloud: Cloud::new(endpoints, &env, clock, Jitter::seeded(1), metrics).unwrap(),
            caller: Caller {
                region: DEMO_REGION.parse().unwrap(),
                project: Some(DEMO_PROJECT.into()),
                credentials: Credentials::fixed(keys, "test"),
            },
            emulator,
        }
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(45)
    }

    /// Creates a secret, whose value becomes v1.
    pub(crate) async fn create(&self, name: &str, value: impl Into<Bytes>) {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value: value.into().0,
        };
        let made = self
            .cloud
            .create_secret(&self.caller, new, Self::deadline());
        hurry(made).await.unwrap();
    }

    /// Adds a version and returns its id.
    pub(crate) async fn put(&self, name: &str, value: impl Into<Bytes>, stages: &[&str]) -> String {
        let stages: Vec<String> = stages.iter().map(ToString::to_string).collect();
        let value = value.into().0;
        let made =
            self.cloud
                .create_secret_version(&self.caller, name, value, &stages, Self::deadline());
        hurry(made).await.unwrap().id
    }

    pub(crate) async fn move_stage(&self, name: &str, stage: &str, version: &str) {
        let moved =
            self.cloud
                .update_secret_stage(&self.caller, name, stage, version, Self::deadline());
        hurry(moved).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        let gone = self
            .cloud
            .delete_secret(&self.caller, name, Self::deadline());
        hurry(gone).await.unwrap();
    }

    /// Tells the emulator to go wrong.
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

    /// Calls of an operation that the cloud has seen.
    pub(crate) async fn calls(&self, operation: &str) -> u64 {
        let calls = self.control(Method::GET, "calls", "").await.json();
        calls["counts"][operation].as_u64().unwrap_or(0)
    }

    /// Counts from zero again.
    pub(crate) async fn clear_calls(&self) {
        self.control(Method::DELETE, "calls", "").await;
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: &str) -> http::Reply {
        let url = format!("{}/_emulator/{path}", self.emulator);
        let reply = hurry(http::send(method, &url, &[], body)).await;
        assert!(reply.status < 300, "{reply:?}");
        reply
    }
}

/// A value as text or bytes.
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
        Self(SecretValue::Binary(dew_provider::secret::SecretBytes::new(
            bytes.to_vec(),
        )))
    }
}
