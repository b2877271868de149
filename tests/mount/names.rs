//! Names of secrets are secrets too: nothing that a namespace can read differs by whether a secret exists that
//! it may not use.

use serde_json::Value;
use tonic::Code;

use super::FOLLOWS_A;
use crate::support::api_server::REVISIONS;
use crate::support::cluster::{Cluster, INTERVAL, SECOND};
use crate::support::paused_clock::drive;
use crate::support::test_node::TestNode;

/// Object lists that name `x`, in ways that fail at different steps if they are allowed.
const CLASSES: [&str; 6] = [
    "- {objectName: x, objectType: csms, objectVersion: latest}",
    "- {objectName: x, objectType: csms, objectVersion: v7}",
    "- {objectName: x, objectType: csms, stage: blue}",
    "- {objectName: x, objectType: csms, objectVersion: latest, optional: true}",
    "- {objectName: x, objectType: csms, objectVersion: latest, allKeys: true}",
    "- {objectName: a, objectType: csms, objectVersion: latest}\n\
     - {objectName: x, objectType: csms, objectVersion: latest, jmesPath: [{path: k, objectAlias: k}]}",
];
/// Annotations that do not allow `x`.
const LISTS: [Option<&str>; 4] = [None, Some("[]"), Some("[\"a\"]"), Some("x")];

/// All errors and Events of Mounts that may not use `x`.
async fn texts(exists: bool) -> Vec<String> {
    let node = TestNode::new().await;
    node.create("a", "of a").await;
    if exists {
        node.create("x", "of x").await;
    }
    let mut texts = Vec::new();
    let mut uid = 0;
    for list in LISTS {
        for objects in CLASSES {
            for failover in [None, Some("cn-south-1")] {
                uid += 1;
                let mut parameters = vec![("objects", objects)];
                parameters.extend(failover.map(|region| ("failoverRegion", region)));
                node.apply("app", &parameters).await;
                node.api.put_account("default", "app", list);
                node.pass(2 * SECOND).await;
                let result = node.publish(&node.pod("app", &uid.to_string())).await;
                let error = result.expect_err("not allowed");
                assert_eq!(error.code(), Code::PermissionDenied);
                texts.push(error.message().to_owned());
            }
        }
    }
    // Before the cloud is asked for anything about it.
    let calls = node.control(http::Method::GET, "calls", "").await.json();
    let asked = calls["calls"].as_array().unwrap().iter();
    assert_eq!(asked.filter(|call| call["secret"] == "x").count(), 0);
    drive(tokio::time::sleep(SECOND)).await;
    texts.extend(
        node.api
            .events()
            .iter()
            .map(|event| event["note"].to_string()),
    );
    texts
}

#[tokio::test]
async fn a_denied_mount_reads_the_same_whether_or_not_the_secret_exists() {
    let existing = texts(true).await;
    assert_eq!(existing.len(), 48, "{existing:?}");
    assert_eq!(existing, texts(false).await);
}

/// What a namespace whose access was withdrawn can read, when the secret then goes or stays.
async fn after_revocation(is_deleted: bool) -> Vec<String> {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.apply("app", &[("objects", FOLLOWS_A)], &["a"]);
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(INTERVAL).await;
    cluster.api.put_account("default", "app", Some("[]"));
    cluster.live(INTERVAL).await;
    if is_deleted {
        cluster.delete("a").await;
    }
    cluster.live(5 * INTERVAL).await;
    cluster.publish(0, &pod).await.unwrap();
    let about_pod = |event: &Value| event["regarding"]["kind"] == "Pod";
    let events = cluster.api.events().into_iter().filter(about_pod);
    events.map(|event| event["note"].to_string()).collect()
}

#[tokio::test]
async fn events_of_a_revoked_pod_do_not_tell_of_the_secret() {
    let kept = after_revocation(false).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept, after_revocation(true).await);
}

/// A class that nobody mounted says nothing, whatever it names.
#[tokio::test]
async fn a_class_without_an_authorized_mount_leads_to_no_call_and_no_revision() {
    for exists in [true, false] {
        let cluster = Cluster::of(1).await;
        if exists {
            cluster.create("x", "of x").await;
        }
        for (index, objects) in CLASSES.into_iter().enumerate() {
            let name = format!("class-{index}");
            cluster.apply(&name, &[("objects", objects)], &[]);
            let pod = cluster.scheduled(0, &name, "1");
            let error = cluster.publish(0, &pod).await.expect_err("not allowed");
            assert_eq!(error.code(), Code::PermissionDenied);
        }
        cluster.live(3 * INTERVAL).await;
        assert!(cluster.api.0.list(REVISIONS).is_empty());
        let notes: Vec<_> = cluster.api.events();
        assert!(notes.is_empty(), "{notes:?}");
        for operation in ["ListSecretVersions", "ShowSecretVersion", "ShowSecretStage"] {
            assert_eq!(cluster.calls(operation).await, 0, "{operation}");
        }
    }
}
