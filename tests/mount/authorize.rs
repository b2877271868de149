//! Which secrets a ServiceAccount allows, and which parameters a pod cannot override.

use std::time::Duration;

use dew_provider::kube::AllowListMode;
use tonic::Code;

use crate::support::test_node::{INTERVAL, Setup, TestNode, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

async fn node(allow_list: AllowListMode) -> TestNode {
    let node = TestNode::with(Setup {
        allow_list,
        ..Setup::default()
    })
    .await;
    node.create("a", "one").await;
    node.apply("app", &[("objects", OBJECTS)]).await;
    node
}

#[tokio::test]
async fn the_list_must_exist_be_valid_and_name_the_secret() {
    let node = node(AllowListMode::Required).await;
    let pod = node.pod("app", "1");
    for (annotation, code, text) in [
        (
            None,
            Code::PermissionDenied,
            "has no annotation cce.io/dew-resource: set it to the list of secrets that its pods may mount, here [\"a\"]",
        ),
        (
            Some("a"),
            Code::PermissionDenied,
            "ServiceAccount default/app, annotation cce.io/dew-resource: ",
        ),
        (Some("[]"), Code::PermissionDenied, "does not list \"a\""),
        (
            Some("[\"b\"]"),
            Code::PermissionDenied,
            "does not list \"a\"",
        ),
    ] {
        node.api.put_account("default", "app", annotation);
        // A pod is not denied because of a list read more than a second ago.
        node.pass(Duration::from_secs(2)).await;
        let error = node.publish(&pod).await.expect_err("not allowed");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(text), "{error}");
    }
    node.api.put_account("default", "app", Some("[\"a\"]"));
    node.pass(Duration::from_secs(2)).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(
        node.calls("ShowSecretVersion").await,
        1,
        "nothing is fetched before authorization"
    );
}

#[tokio::test]
async fn a_missing_service_account_is_named() {
    let node = node(AllowListMode::Required).await;
    let error = node
        .publish(&node.pod("app", "1"))
        .await
        .expect_err("no ServiceAccount");
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error
            .message()
            .contains("ServiceAccount default/app does not exist"),
        "{error}"
    );
}

#[tokio::test]
async fn a_revoked_permission_stops_new_pods_within_seconds_and_updates_within_an_interval() {
    let node = node(AllowListMode::Required).await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    node.api.put_account("default", "app", Some("[]"));
    node.put("a", "two", &[]).await;
    node.pass(Duration::from_secs(11)).await;
    assert!(node.publish(&node.pod("app", "2")).await.is_err());
    node.pass(INTERVAL + Duration::from_secs(1)).await;
    // The driver hides the error: the pod keeps its files and gets no new ones.
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn if_present_enforces_a_list_that_exists() {
    let node = node(AllowListMode::IfPresent).await;
    node.api.put_account("default", "app", None);
    node.publish(&node.pod("app", "1")).await.unwrap();
    node.api.put_account("default", "app", Some("[]"));
    node.pass(Duration::from_secs(11)).await;
    let error = node
        .publish(&node.pod("app", "2"))
        .await
        .expect_err("not listed");
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn off_reads_no_service_account() {
    let node = node(AllowListMode::Off).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    assert_eq!(node.api.account_reads(), 0);
}

#[tokio::test]
async fn failures_of_the_api_server_are_reported_with_final_codes() {
    let node = node(AllowListMode::Required).await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    for (status, code, text) in [
        (
            500,
            Code::Internal,
            "could not read ServiceAccount default/app from the API server: 500 InternalError",
        ),
        (
            403,
            Code::FailedPrecondition,
            "the provider's ClusterRole must allow",
        ),
    ] {
        node.api.set_broken(Some(status));
        let error = node
            .publish(&node.pod("app", "1"))
            .await
            .expect_err("broken");
        assert_eq!(error.code(), code);
        assert!(error.message().contains(text), "{error}");
    }
    node.api.set_broken(None);
    node.publish(&node.pod("app", "1")).await.unwrap();
    // In a mounted volume, a list stays valid for a minute.
    node.api.set_broken(Some(500));
    node.pass(Duration::from_secs(50)).await;
    let failed = node.failed_mounts().await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    assert_eq!(node.failed_mounts().await, failed);
}

/// The interval of a class is the tenant's, so it must not decide how old an authorization may be.
#[tokio::test]
async fn an_emptied_list_stops_new_versions_within_a_minute() {
    let node = node(AllowListMode::Required).await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    node.apply(
        "app",
        &[("objects", OBJECTS), ("rotationPollInterval", "1440m")],
    )
    .await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    let before = read(&pod, "a");
    node.api.put_account("default", "app", Some("[]"));
    node.owner.put("a", "newer", &[]).await;
    node.pass(Duration::from_secs(61)).await;
    let failed = node.failed_mounts().await;
    node.publish(&pod).await.unwrap();
    assert_eq!(node.failed_mounts().await, failed + 1);
    assert_eq!(read(&pod, "a"), before);
    // A day later too.
    node.pass(Duration::from_secs(25 * 60 * 60)).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), before);
}

#[tokio::test]
async fn pods_cannot_override_parameters_of_identity_and_location() {
    let node = node(AllowListMode::Off).await;
    for key in [
        "region",
        "failoverRegion",
        "projectId",
        "credentials",
        "agency",
    ] {
        let mut pod = node.pod("app", "1");
        pod.attributes.insert(key.into(), "cn-north-4".into());
        let error = node.publish(&pod).await.expect_err("an override");
        assert_eq!(error.code(), Code::PermissionDenied, "{error}");
        let expected = format!("parameter {key} differs from SecretProviderClass default/app");
        assert!(error.message().contains(&expected), "{error}");
        assert!(error.message().contains("volumeAttributes"), "{error}");
        assert!(
            error
                .message()
                .contains("the driver has not observed that yet"),
            "{error}"
        );
    }
    // A pod may repeat the value of the class, and may set other attributes.
    node.apply("app", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    let mut pod = node.pod("app", "1");
    pod.attributes.insert("region".into(), "cn-north-4".into());
    pod.attributes.insert("example.com/note".into(), "x".into());
    node.publish(&pod).await.unwrap();
}

#[tokio::test]
async fn an_edit_not_yet_observed_by_the_watch_is_read_from_the_api_server() {
    let node = node(AllowListMode::Off).await;
    node.api.hold_watch();
    node.apply("app", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    node.apply("new", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    node.publish(&node.pod("new", "2")).await.unwrap();
}

#[tokio::test]
async fn objects_set_by_the_pod_are_checked_against_the_list() {
    let node = node(AllowListMode::Required).await;
    node.create("b", "two").await;
    node.api.put_account("default", "app", Some("[\"a\"]"));
    let mut pod = node.pod("app", "1");
    let other = OBJECTS.replace("objectName: a", "objectName: b");
    pod.attributes.insert("objects".into(), other);
    let error = node.publish(&pod).await.expect_err("not listed");
    assert_eq!(error.code(), Code::PermissionDenied);
}
