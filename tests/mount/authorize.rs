//! What a ServiceAccount allows, and what a pod may not override.

use std::time::Duration;

use dew_provider::provider::authorize::AllowListMode;
use tonic::Code;

use super::super::support::world::{INTERVAL, Setup, World, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

async fn world(allow_list: AllowListMode) -> World {
    let world = World::with(Setup {
        allow_list,
        ..Setup::default()
    })
    .await;
    world.create("a", "one").await;
    world.apply("app", &[("objects", OBJECTS)]).await;
    world
}

#[tokio::test]
async fn the_list_must_be_there_and_readable() {
    let world = world(AllowListMode::Required).await;
    let pod = world.pod("app", "1");
    for (annotation, code, text) in [
        (
            None,
            Code::PermissionDenied,
            "has no annotation cce.io/dew-resource: it must list the secrets that its pods may mount, here [\"a\"]",
        ),
        (
            Some("a"),
            Code::PermissionDenied,
            "annotation cce.io/dew-resource: ",
        ),
        (Some("[]"), Code::PermissionDenied, "does not list \"a\""),
        (
            Some("[\"b\"]"),
            Code::PermissionDenied,
            "does not list \"a\"",
        ),
    ] {
        world.api.put_account("default", "app", annotation);
        // Who has just mended an annotation need not wait.
        world.pass(Duration::from_secs(2)).await;
        let refused = world.publish(&pod).await.expect_err("not allowed");
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(text), "{refused}");
    }
    world.api.put_account("default", "app", Some("[\"a\"]"));
    world.pass(Duration::from_secs(2)).await;
    world.publish(&pod).await.unwrap();
    assert_eq!(
        world.calls("ShowSecretVersion").await,
        1,
        "nothing is fetched before it is allowed"
    );
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_named() {
    let world = world(AllowListMode::Required).await;
    let refused = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("no account");
    assert_eq!(refused.code(), Code::NotFound);
    assert!(
        refused
            .message()
            .contains("ServiceAccount default/app does not exist"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_right_taken_away_stops_new_pods_at_once_and_mounted_ones_within_an_interval() {
    let world = world(AllowListMode::Required).await;
    world.api.put_account("default", "app", Some("[\"a\"]"));
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    world.api.put_account("default", "app", Some("[]"));
    world.put("a", "two", &[]).await;
    world.pass(Duration::from_secs(11)).await;
    assert!(world.publish(&world.pod("app", "2")).await.is_err());
    world.pass(INTERVAL + Duration::from_secs(1)).await;
    // The driver masks the refusal: the pod keeps the files it has, and gets no new ones.
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn if_present_a_list_that_is_there_decides() {
    let world = world(AllowListMode::IfPresent).await;
    world.api.put_account("default", "app", None);
    world.publish(&world.pod("app", "1")).await.unwrap();
    world.api.put_account("default", "app", Some("[]"));
    world.pass(Duration::from_secs(11)).await;
    let refused = world
        .publish(&world.pod("app", "2"))
        .await
        .expect_err("not listed");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn off_reads_no_account() {
    let world = world(AllowListMode::Off).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    assert_eq!(world.api.account_reads(), 0);
}

#[tokio::test]
async fn an_api_server_that_fails_is_told_and_final() {
    let world = world(AllowListMode::Required).await;
    world.api.put_account("default", "app", Some("[\"a\"]"));
    for (status, code, text) in [
        (
            500,
            Code::Internal,
            "could not be read from the API server: 500 InternalError",
        ),
        (
            403,
            Code::FailedPrecondition,
            "the provider's ClusterRole must allow",
        ),
    ] {
        world.api.set_broken(Some(status));
        let refused = world
            .publish(&world.pod("app", "1"))
            .await
            .expect_err("broken");
        assert_eq!(refused.code(), code);
        assert!(refused.message().contains(text), "{refused}");
    }
    world.api.set_broken(None);
    world.publish(&world.pod("app", "1")).await.unwrap();
    // What was read is good for volumes that are mounted, for an interval.
    world.api.set_broken(Some(500));
    world.pass(Duration::from_secs(60)).await;
    world.publish(&world.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn pods_cannot_override_what_decides_identity_and_place() {
    let world = world(AllowListMode::Off).await;
    for key in [
        "region",
        "failoverRegion",
        "projectId",
        "credentials",
        "agency",
    ] {
        let mut pod = world.pod("app", "1");
        pod.attributes.insert(key.into(), "cn-north-4".into());
        let refused = world.publish(&pod).await.expect_err("an override");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let named = format!("parameter {key} differs from SecretProviderClass default/app");
        assert!(refused.message().contains(&named), "{refused}");
        assert!(refused.message().contains("volumeAttributes"), "{refused}");
        assert!(
            refused.message().contains("the driver has not seen it yet"),
            "{refused}"
        );
    }
    // What is the same as in the class is no override; other attributes are the pod's own affair.
    world
        .apply("app", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    let mut pod = world.pod("app", "1");
    pod.attributes.insert("region".into(), "cn-north-4".into());
    pod.attributes.insert("example.com/note".into(), "x".into());
    world.publish(&pod).await.unwrap();
}

#[tokio::test]
async fn an_edit_that_our_watch_has_not_seen_yet_is_looked_up() {
    let world = world(AllowListMode::Off).await;
    world.api.hold_watch();
    world
        .apply("app", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    world
        .apply("new", &[("objects", OBJECTS), ("region", "cn-north-4")])
        .await;
    world.publish(&world.pod("new", "2")).await.unwrap();
}

#[tokio::test]
async fn objects_may_be_given_by_the_pod_and_are_then_held_to_the_list_too() {
    let world = world(AllowListMode::Required).await;
    world.create("b", "two").await;
    world.api.put_account("default", "app", Some("[\"a\"]"));
    let mut pod = world.pod("app", "1");
    let other = OBJECTS.replace("objectName: a", "objectName: b");
    pod.attributes.insert("objects".into(), other);
    let refused = world.publish(&pod).await.expect_err("not listed");
    assert_eq!(refused.code(), Code::PermissionDenied);
}
