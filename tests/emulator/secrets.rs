//! Secrets, versions, stages, limits and permissions.

use dew_provider::cloud::{ErrorKind, SecretValue};
use dew_provider::sim::huawei::{Account, Config, LatestMeans, Rights};
use dew_provider::util::secret_bytes::SecretBytes;
use http::StatusCode;

use super::service::{Service, assert_error, deadline, text};

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
    // A version with explicit stages does not move SYSCURRENT.
    service.put("s", "three", &["canary"]).await.unwrap();
    assert_eq!(service.show("s", "latest").await.unwrap().0, "v2");
    assert_eq!(service.stage("s", "canary").await.unwrap(), "v3");
    let listed = service
        .csms
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
    assert_error(service.show("s", "v9").await, 404, "CSMS.0205");
    assert_error(service.stage("s", "none").await, 404, "CSMS.0206");
    assert_error(service.show("t", "latest").await, 404, "CSMS.0106");
    assert_error(service.create("s", text("x")).await, 409, "CSMS.0101");
}

#[tokio::test]
async fn latest_can_mean_the_newest_version() {
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
async fn limits_match_those_of_csms() {
    let service = Service::start(Config::default()).await;
    service
        .create("s", text(&"x".repeat(32_768)))
        .await
        .unwrap();
    // The client checks this before it calls; the SDK tests check that the emulator does, too.
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
        .csms
        .list_secret_versions(&service.caller, "s", deadline())
        .await
        .unwrap();
    assert_eq!(
        (kept.len(), kept[0].id.as_str()),
        (20, "v6"),
        "the oldest versions are removed"
    );
    for stage in 0..10 {
        service
            .put("s", "x", &[&format!("stage{stage}")])
            .await
            .unwrap();
    }
    assert_error(
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
    assert_error(service.create("s200", text("x")).await, 400, "CSMS.0202");
    let all = service
        .csms
        .list_secrets(&service.caller, deadline())
        .await
        .unwrap();
    assert_eq!(all.len(), 200, "listed in several pages");
}

#[tokio::test]
async fn missing_permissions_are_errors() {
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
    assert_error(service.show("s", "latest").await, 400, "CSMS.0401");
    let service = Service::start(with(Rights {
        read: false,
        write: false,
        list: false,
        kms: true,
    }))
    .await;
    assert_error(service.show("s", "latest").await, 403, "CSMS.0302");
    assert_error(service.create("s", text("x")).await, 403, "CSMS.0302");
    assert_error(
        service.csms.list_secrets(&service.caller, deadline()).await,
        403,
        "CSMS.0302",
    );
    let mut caller = service.caller.clone();
    caller.project = Some("f".repeat(32));
    assert_error(
        service.csms.list_secrets(&caller, deadline()).await,
        403,
        "CSMS.0302",
    );
}

#[tokio::test]
async fn undocumented_details_are_configurable() {
    let config = Config {
        not_found: StatusCode::BAD_REQUEST,
        delete_status: StatusCode::OK,
        ..Config::default()
    };
    let service = Service::start(config).await;
    let error = service.show("s", "latest").await.expect_err("none");
    assert_eq!((error.status, error.kind), (Some(400), ErrorKind::NotFound));
    service.create("s", text("x")).await.unwrap();
    service
        .csms
        .delete_secret(&service.caller, "s", deadline())
        .await
        .unwrap();
    assert_error(
        service
            .csms
            .show_secret(&service.caller, "s", deadline())
            .await,
        400,
        "CSMS.0106",
    );
}
