//! Secrets, versions, stages, limits and rights.

use dew_provider::cloud::{Kind, SecretValue};
use dew_provider::emulator::{Account, Config, LatestMeans, Rights};
use dew_provider::secret::SecretBytes;
use http::StatusCode;

use super::service::{Service, deadline, refused, text};

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
