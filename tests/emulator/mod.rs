//! The emulator, as a client meets it: versions, stages, states, limits, errors, tokens, its file.

use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{
    AccessKeys, ApiError, Caller, Cloud, Config as CloudConfig, Credentials, Env, Kind, NewSecret,
    SecretValue,
};
use dew_provider::emulator::{
    Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
    LatestMeans, Rights, TokenMode,
};
use dew_provider::observe::metrics::CloudMetrics;
use dew_provider::secret::SecretBytes;
use http::{Method, StatusCode};
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::support::http::{get, send};

/// An emulator with a client for its account.
struct Service {
    emulator: Emulator,
    cloud: Cloud,
    caller: Caller,
}

impl Service {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let emulator = Emulator::start(listener, config, Clock::system()).unwrap();
        let many = 10_000.try_into().unwrap();
        let endpoints = CloudConfig {
            csms_endpoint: Some(emulator.url()),
            iam_endpoint: Some(emulator.url()),
            qps: many,
            burst: many,
            ..CloudConfig::default()
        };
        let (clock, jitter) = (Clock::system(), Jitter::seeded(1));
        let metrics = CloudMetrics::default();
        let cloud = Cloud::new(endpoints, &Env::default(), clock, jitter, metrics).unwrap();
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        let caller = Caller {
            region: DEMO_REGION.parse().unwrap(),
            project: Some(DEMO_PROJECT.into()),
            credentials: Credentials::fixed(keys, "test"),
        };
        Self {
            emulator,
            cloud,
            caller,
        }
    }

    async fn create(&self, name: &str, value: SecretValue) -> Result<(), ApiError> {
        let new = NewSecret {
            name: name.into(),
            kms_key_id: None,
            description: None,
            value,
        };
        self.cloud
            .create_secret(&self.caller, new, deadline())
            .await
            .map(drop)
    }

    async fn put(&self, name: &str, value: &str, stages: &[&str]) -> Result<String, ApiError> {
        let stages: Vec<_> = stages.iter().map(ToString::to_string).collect();
        let made =
            self.cloud
                .create_secret_version(&self.caller, name, text(value), &stages, deadline());
        made.await.map(|made| made.id)
    }

    async fn show(&self, name: &str, version: &str) -> Result<(String, SecretValue), ApiError> {
        let found = self
            .cloud
            .show_secret_version(&self.caller, name, version, deadline())
            .await?;
        Ok((found.metadata.id, found.value))
    }

    async fn stage(&self, name: &str, stage: &str) -> Result<String, ApiError> {
        let found = self
            .cloud
            .show_secret_stage(&self.caller, name, stage, deadline())
            .await?;
        Ok(found.version_id)
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(45)
}

fn text(value: &str) -> SecretValue {
    SecretValue::Text(value.to_owned().into())
}

fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, status: u16, code: &str) {
    let error = result.expect_err(code);
    assert_eq!(
        (error.status, error.code.as_deref()),
        (Some(status), Some(code)),
        "{error}"
    );
}

#[tokio::test]
async fn versions_are_numbered_and_the_current_stage_moves_along() {
    let service = Service::start(Config::default()).await;
    service.create("s", text("one")).await.unwrap();
    assert_eq!(service.put("s", "two", &[]).await.unwrap(), "v2");
    assert_eq!(
        service.show("s", "latest").await.unwrap(),
        ("v2".into(), text("two"))
    );
    assert_eq!(
        service.show("s", "v1").await.unwrap(),
        ("v1".into(), text("one"))
    );
    assert_eq!(service.stage("s", "SYSCURRENT").await.unwrap(), "v2");
    assert_eq!(service.stage("s", "SYSPREVIOUS").await.unwrap(), "v1");
    // A version with stages of its own leaves the current one where it is.
    service.put("s", "three", &["canary"]).await.unwrap();
    assert_eq!(service.show("s", "latest").await.unwrap().0, "v2");
    assert_eq!(service.stage("s", "canary").await.unwrap(), "v3");
    let listed = service
        .cloud
        .list_secret_versions(&service.caller, "s", deadline())
        .await
        .unwrap();
    let stages: Vec<_> = listed
        .iter()
        .map(|v| (v.id.as_str(), v.stages.join(",")))
        .collect();
    assert_eq!(
        stages,
        [
            ("v1", "SYSPREVIOUS".into()),
            ("v2", "SYSCURRENT".into()),
            ("v3", "canary".to_owned())
        ]
    );
    refused(service.show("s", "v9").await, 404, "CSMS.0205");
    refused(service.stage("s", "none").await, 404, "CSMS.0206");
    refused(service.show("t", "latest").await, 404, "CSMS.0106");
    refused(service.create("s", text("x")).await, 409, "CSMS.0101");
}

#[tokio::test]
async fn latest_can_mean_the_newest() {
    let service = Service::start(Config {
        latest: LatestMeans::Newest,
        ..Config::default()
    })
    .await;
    service.create("s", text("one")).await.unwrap();
    service.put("s", "two", &["canary"]).await.unwrap();
    assert_eq!(service.show("s", "latest").await.unwrap().0, "v2");
}

#[tokio::test]
async fn binary_values_come_back_byte_for_byte() {
    let service = Service::start(Config::default()).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let value = SecretValue::Binary(SecretBytes::new(bytes));
    service.create("b", value.clone()).await.unwrap();
    assert_eq!(service.show("b", "v1").await.unwrap().1, value);
}

#[tokio::test]
async fn limits_are_those_of_the_service() {
    let service = Service::start(Config::default()).await;
    service
        .create("s", text(&"x".repeat(32_768)))
        .await
        .unwrap();
    // The client tells this before it asks; that the emulator holds it is seen by the SDK's tests.
    let error = service.put("s", &"x".repeat(32_769), &[]).await;
    assert!(
        error
            .expect_err("too long")
            .message
            .contains("at most 32768")
    );
    for number in 2..=25 {
        assert_eq!(
            service.put("s", "x", &[]).await.unwrap(),
            format!("v{number}")
        );
    }
    let kept = service
        .cloud
        .list_secret_versions(&service.caller, "s", deadline())
        .await
        .unwrap();
    assert_eq!(
        (kept.len(), kept[0].id.as_str()),
        (20, "v6"),
        "the oldest make room"
    );
    for stage in 0..10 {
        service
            .put("s", "x", &[&format!("stage{stage}")])
            .await
            .unwrap();
    }
    refused(
        service.put("s", "x", &["one-too-many"]).await,
        400,
        "CSMS.0204",
    );
    for number in 1..200 {
        service
            .create(&format!("s{number}"), text("x"))
            .await
            .unwrap();
    }
    refused(service.create("s200", text("x")).await, 400, "CSMS.0202");
    let all = service
        .cloud
        .list_secrets(&service.caller, deadline())
        .await
        .unwrap();
    assert_eq!(all.len(), 200, "in several pages");
}

#[tokio::test]
async fn rights_are_held() {
    let with = |rights| Config {
        accounts: vec![Account {
            rights,
            ..Account::demo()
        }],
        ..Config::default()
    };
    let service = Service::start(with(Rights {
        kms: false,
        ..Rights::default()
    }))
    .await;
    refused(service.show("s", "latest").await, 400, "CSMS.0401");
    let service = Service::start(with(Rights {
        read: false,
        write: false,
        list: false,
        kms: true,
    }))
    .await;
    refused(service.show("s", "latest").await, 403, "CSMS.0302");
    refused(service.create("s", text("x")).await, 403, "CSMS.0302");
    refused(
        service
            .cloud
            .list_secrets(&service.caller, deadline())
            .await,
        403,
        "CSMS.0302",
    );
    let mut caller = service.caller.clone();
    caller.project = Some("f".repeat(32));
    refused(
        service.cloud.list_secrets(&caller, deadline()).await,
        403,
        "CSMS.0302",
    );
}

#[tokio::test]
async fn what_the_documents_leave_open_can_be_chosen() {
    let config = Config {
        not_found: StatusCode::BAD_REQUEST,
        delete_status: StatusCode::OK,
        ..Config::default()
    };
    let service = Service::start(config).await;
    let error = service.show("s", "latest").await.expect_err("none");
    assert_eq!((error.status, error.kind), (Some(400), Kind::NotFound));
    service.create("s", text("x")).await.unwrap();
    service
        .cloud
        .delete_secret(&service.caller, "s", deadline())
        .await
        .unwrap();
    refused(
        service
            .cloud
            .show_secret(&service.caller, "s", deadline())
            .await,
        400,
        "CSMS.0106",
    );
}

#[tokio::test]
async fn wrong_keys_are_refused_and_locked_like_the_gateways() {
    let service = Service::start(Config {
        lock_keys: true,
        ..Config::default()
    })
    .await;
    let wrong = |access: &str, secret: &str| Caller {
        credentials: Credentials::fixed(AccessKeys::new(access, secret, None, None), "test"),
        ..service.caller.clone()
    };
    let list = |caller: Caller| async {
        let caller = caller;
        service.cloud.list_secrets(&caller, deadline()).await
    };
    let error = list(wrong("UNKNOWN", "x")).await.expect_err("unknown");
    assert!(error.message.contains("ak not exist"), "{error}");
    for _ in 0..5 {
        let error = list(wrong(DEMO_ACCESS_KEY, "x")).await.expect_err("wrong");
        assert!(
            error.message.contains("verify aksk signature fail"),
            "{error}"
        );
    }
    let error = list(service.caller.clone()).await.expect_err("locked");
    assert!(
        error
            .message
            .contains("AK access failed to reach the limit"),
        "{error}"
    );
}

#[tokio::test]
async fn the_metadata_service_has_three_token_modes() {
    for (mode, put, bare, with_token) in [
        (TokenMode::Off, 404, 200, 200),
        (TokenMode::Optional, 200, 200, 200),
        (TokenMode::Required, 200, 401, 200),
    ] {
        let service = Service::start(Config {
            metadata_token: mode,
            ..Config::default()
        })
        .await;
        let url = service.emulator.url();
        let keys = format!("{url}/openstack/latest/securitykey");
        let ttl = [("x-metadata-token-ttl-seconds", "21600")];
        let token = send(
            Method::PUT,
            &format!("{url}/meta-data/latest/api/token"),
            &ttl,
            "",
        )
        .await;
        assert_eq!(token.status, put, "{mode:?}");
        assert_eq!(get(&keys).await.status, bare, "{mode:?}");
        let token = token.text();
        let reply = send(Method::GET, &keys, &[("x-metadata-token", &token)], "").await;
        assert_eq!(reply.status, with_token, "{mode:?}");
        let expires = reply.json()["credential"]["expires_at"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(expires.ends_with('Z') && expires.len() == 27, "{expires}");
    }
    let service = Service::start(Config {
        agency: false,
        ..Config::default()
    })
    .await;
    let reply = get(&format!(
        "{}/openstack/latest/securitykey",
        service.emulator.url()
    ))
    .await;
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .text()
            .contains("Please configure Cloud Service Agency first")
    );
}

#[tokio::test]
async fn secrets_outlive_the_process_in_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloud.json");
    let config = Config {
        state: Some(path.clone()),
        ..Config::default()
    };
    let service = Service::start(config.clone()).await;
    service.create("s", text("one")).await.unwrap();
    service.put("s", "two", &[]).await.unwrap();
    service.emulator.shutdown().await;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let service = Service::start(config.clone()).await;
    assert_eq!(
        service.show("s", "latest").await.unwrap(),
        ("v2".into(), text("two"))
    );
    service.emulator.shutdown().await;
    // A damaged file is never taken for an empty one.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Emulator::start(listener, config, Clock::system()).expect_err("damaged");
    assert!(
        error.to_string().contains("is damaged at line 1"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), &whole[..whole.len() / 2]);
}

#[tokio::test]
async fn calls_are_listed_and_bad_orders_are_refused() {
    let service = Service::start(Config::default()).await;
    service.create("s", text("one")).await.unwrap();
    service.show("s", "v1").await.unwrap();
    let url = format!("{}/_emulator", service.emulator.url());
    let calls = get(&format!("{url}/calls")).await.json();
    assert_eq!(
        calls["counts"],
        json!({"CreateSecret": 1, "ShowSecretVersion": 1})
    );
    let last = &calls["calls"][1];
    assert_eq!(
        (&last["secret"], &last["version"], &last["status"]),
        (&json!("s"), &json!("v1"), &json!(200))
    );
    for (method, path, body) in [
        (Method::POST, "faults", "{}"),
        (Method::POST, "faults", r#"{"fault": {"stauts": 429}}"#),
        (Method::PUT, "clock", "now"),
        (Method::PUT, "secrets/s/state", r#"{"state": "ON"}"#),
    ] {
        let reply = send(method, &format!("{url}/{path}"), &[], body).await;
        assert_eq!(reply.status, 400, "{path} {body}");
    }
    let reply = send(
        Method::PUT,
        &format!("{url}/secrets/none/state"),
        &[],
        r#"{"state":"DISABLED"}"#,
    )
    .await;
    assert_eq!(reply.status, 404);
}
