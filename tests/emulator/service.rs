//! An emulator with a client for its demo account.

use std::sync::Arc;
use std::time::Duration;

use dew_provider::cloud::{
    AccessKeys, ApiError, Caller, Cloud, CloudConfig, Credentials, Csms, Dial, Kms, NewSecret,
    SecretValue, Socket, Turn, tcp,
};
use dew_provider::sim::huawei::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// An emulator with a client for its demo account.
pub(super) struct Service {
    pub(super) emulator: Arc<Emulator>,
    pub(super) csms: Csms,
    pub(super) kms: Kms,
    pub(super) caller: Caller,
}

impl Service {
    pub(super) async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, config, Clock::system()).unwrap();
        Self::with(Arc::new(emulator), Clock::system(), tcp())
    }

    /// Without sockets, so that a test can pause time.
    pub(super) fn in_memory(config: Config) -> Self {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Clock::from_tokio(start);
        let emulator = Arc::new(Emulator::in_memory(config, clock.clone()).unwrap());
        let server = Arc::clone(&emulator);
        let dial: Dial = Arc::new(move |_| {
            let socket = Socket::new(server.connect());
            Box::pin(async { Ok(socket) })
        });
        Self::with(emulator, clock, dial)
    }

    fn with(emulator: Arc<Emulator>, clock: Clock, dial: Dial) -> Self {
        let endpoints = CloudConfig::emulated(&emulator.url());
        let (env, metrics) = (Env::default(), CloudMetrics::default());
        let jitter = Jitter::seeded(1);
        let cloud = Cloud::with_dial(endpoints, &env, clock, jitter, metrics, dial).unwrap();
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let caller = Caller {
            region: DEMO_REGION.parse().unwrap(),
            project: Some(DEMO_PROJECT.into()),
            credentials: Credentials::fixed(keys, "test"),
            turn: Turn::default(),
        };
        Self {
            emulator,
            csms: Csms::new(cloud.clone()),
            kms: Kms::new(cloud),
            caller,
        }
    }

    pub(super) async fn create(&self, name: &str, value: SecretValue) -> Result<(), ApiError> {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value,
        };
        self.csms
            .create_secret(&self.caller, new, deadline())
            .await
            .map(drop)
    }

    pub(super) async fn put(
        &self,
        name: &str,
        value: &str,
        stages: &[&str],
    ) -> Result<String, ApiError> {
        let stages: Vec<_> = stages.iter().map(ToString::to_string).collect();
        let call =
            self.csms
                .create_secret_version(&self.caller, name, text(value), &stages, deadline());
        call.await.map(|version| version.id)
    }

    pub(super) async fn show(
        &self,
        name: &str,
        version: &str,
    ) -> Result<(String, SecretValue), ApiError> {
        let found = self
            .csms
            .show_secret_version(&self.caller, name, version, deadline())
            .await?;
        Ok((found.metadata.id, found.value))
    }

    pub(super) async fn stage(&self, name: &str, stage: &str) -> Result<String, ApiError> {
        let found = self
            .csms
            .show_secret_stage(&self.caller, name, stage, deadline())
            .await?;
        Ok(found.version_id)
    }
}

pub(super) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(45)
}

pub(super) fn text(value: &str) -> SecretValue {
    SecretValue::Text(value.to_owned().into())
}

/// Asserts that the call failed with this HTTP status and error code.
pub(super) fn assert_error<T: std::fmt::Debug>(
    result: Result<T, ApiError>,
    status: u16,
    code: &str,
) {
    let error = result.expect_err(code);
    assert_eq!(
        (error.status, error.code.as_deref()),
        (Some(status), Some(code)),
        "{error}"
    );
}
