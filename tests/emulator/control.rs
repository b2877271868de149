//! Access keys, the metadata service, the state file, and the control API.

use std::sync::Arc;

use dew_provider::cloud::{AccessKeys, Caller, Credentials};
use dew_provider::sim::huawei::{Config, DEMO_ACCESS_KEY, Emulator, TokenMode};
use dew_provider::util::clock::Clock;
use http::Method;
use serde_json::json;
use tokio::net::TcpListener;

use super::service::{Service, deadline, text};
use crate::support::http::{get, send};

#[tokio::test]
async fn wrong_keys_are_rejected_and_locked_out_as_by_the_real_gateway() {
    let service = Service::start(Config {
        lock_keys: true,
        ..Config::default()
    })
    .await;
    let caller = |access: &str, secret: &str| Caller {
        credentials: Credentials::fixed(AccessKeys::new(access, secret, None, None), "test"),
        ..service.caller.clone()
    };
    let list = |caller: Caller| async {
        let caller = caller;
        service.csms.list_secrets(&caller, deadline()).await
    };
    let error = list(caller("UNKNOWN", "x")).await.expect_err("unknown");
    assert!(error.message.contains("ak not exist"), "{error}");
    for _ in 0..5 {
        let error = list(caller(DEMO_ACCESS_KEY, "x")).await.expect_err("wrong");
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
async fn secrets_survive_a_restart_in_the_state_file() {
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
    Arc::into_inner(service.emulator).unwrap().shutdown().await;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let service = Service::start(config.clone()).await;
    assert_eq!(
        service.show("s", "latest").await.unwrap(),
        ("v2".into(), text("two"))
    );
    Arc::into_inner(service.emulator).unwrap().shutdown().await;
    // A damaged file is an error and is not overwritten.
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
async fn the_control_api_lists_calls_and_rejects_invalid_requests() {
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
