//! Versions of files, the region and project that are read, and errors in the parameters of a class.

use std::collections::BTreeMap;

use dew_provider::sim::huawei::{self, Account, DEMO_PROJECT, DEMO_REGION};
use serde_json::json;
use tonic::Code;

use crate::support::test_node::{Setup, TestNode, read};

/// Mounts `objects` in a new pod and returns the versions in its status.
async fn versions(node: &TestNode, uid: &str, objects: &str) -> BTreeMap<String, String> {
    node.apply_for("app", objects, &["a", "b"]).await;
    let pod = node.pod("app", uid);
    node.publish(&pod).await.unwrap();
    node.driver.status(&pod.target_path).unwrap().objects
}

#[tokio::test]
async fn a_file_version_changes_exactly_when_the_bytes_can() {
    let node = TestNode::new().await;
    node.create("a", r#"{"k":"v"}"#).await;
    node.create("b", r#"{"k":"v"}"#).await;
    let object = |fields: &str| format!("- {{objectName: a, objectType: csms, {fields}}}");
    let plain = versions(&node, "1", &object("objectVersion: latest")).await;
    let (id, hash) = plain["a"].split_once('-').unwrap();
    assert_eq!(id, "v1");
    assert!(
        hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{hash}"
    );
    assert_eq!(
        plain,
        versions(&node, "2", &object("objectVersion: latest")).await
    );
    assert_eq!(
        plain,
        versions(&node, "3", &object("objectVersion: v1")).await
    );
    assert_eq!(
        plain,
        versions(&node, "4", &object("stage: SYSCURRENT")).await
    );
    let mut seen = vec![plain["a"].clone()];
    for (uid, fields, path) in [
        ("5", "objectVersion: v1, filePermission: \"0600\"", "a"),
        ("6", "objectVersion: v1, objectAlias: c", "c"),
        (
            "7",
            "objectVersion: v1, jmesPath: [{path: k, objectAlias: d}]",
            "d",
        ),
        (
            "8",
            "objectVersion: v1, jmesPath: [{path: \"k || k\", objectAlias: d}]",
            "d",
        ),
        ("9", "objectVersion: v1, allKeys: true", "k"),
    ] {
        seen.push(versions(&node, uid, &object(fields)).await[path].clone());
    }
    // Another secret with an equal value, and a new version with the old value.
    let other = object("objectVersion: v1").replace("objectName: a", "objectName: b");
    seen.push(versions(&node, "10", &other).await["b"].clone());
    node.put("a", r#"{"k":"v"}"#, &[]).await;
    seen.push(versions(&node, "11", &object("objectVersion: v2")).await["a"].clone());
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "{seen:?}");
}

/// An account with projects in two regions, so that both can be read.
fn two_regions() -> huawei::Config {
    let account = Account {
        projects: [
            (DEMO_REGION.to_owned(), DEMO_PROJECT.to_owned()),
            ("cn-south-1".to_owned(), "f".repeat(32)),
        ]
        .into(),
        ..Account::demo()
    };
    huawei::Config {
        accounts: vec![account],
        ..huawei::Config::default()
    }
}

#[tokio::test]
async fn the_failover_region_is_read_only_during_an_outage_of_the_first() {
    let node = TestNode::with(Setup {
        emulator: two_regions(),
        // Otherwise the version cached from the north would be served.
        stale_limit: std::time::Duration::ZERO,
        ..Setup::default()
    })
    .await;
    node.create("a", "of the north").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.api
        .put_account("default", "app", Some("[\"a\", \"gone\"]"));
    node.apply(
        "app",
        &[("objects", objects), ("failoverRegion", "cn-south-1")],
    )
    .await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(node.calls("ShowSecretVersion").await, 1);
    // A rejection by the first region is final.
    let gone = objects.replace("objectName: a", "objectName: gone");
    node.apply(
        "app",
        &[("objects", &gone), ("failoverRegion", "cn-south-1")],
    )
    .await;
    let error = node.publish(&node.pod("app", "2")).await.expect_err("gone");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(node.calls("ShowSecretVersion").await, 2);
    // During an outage of the first region the second one is read; both failures are reported.
    node.apply(
        "app",
        &[("objects", objects), ("failoverRegion", "cn-south-1")],
    )
    .await;
    node.fault(json!({"match": {"region": "cn-north-4"}, "fault": {"status": 502}}))
        .await;
    node.pass(std::time::Duration::from_secs(11)).await;
    let error = node
        .publish(&node.pod("app", "3"))
        .await
        .expect_err("not in the south");
    assert_eq!(error.code(), Code::Internal, "{error}");
    for text in [
        "HTTP 502",
        "gave up after 5 attempts",
        "failoverRegion:",
        "CSMS.0106",
    ] {
        assert!(error.message().contains(text), "{text}: {error}");
    }
}

#[tokio::test]
async fn the_project_is_looked_up_once_and_not_at_all_if_the_class_sets_it() {
    let node = TestNode::with(Setup {
        emulator: two_regions(),
        ..Setup::default()
    })
    .await;
    node.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    for uid in ["1", "2", "3"] {
        node.apply_for("app", objects, &["a"]).await;
        node.publish(&node.pod("app", uid)).await.unwrap();
        node.pass(std::time::Duration::from_secs(11)).await;
    }
    assert_eq!(node.calls("KeystoneListProjects").await, 1);
    node.apply(
        "app",
        &[
            ("objects", objects),
            ("projectId", DEMO_PROJECT),
            ("region", "cn-east-3"),
        ],
    )
    .await;
    let pod = node.pod("app", "4");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    assert_eq!(node.calls("KeystoneListProjects").await, 1);
    // The account has no project in this region.
    node.apply("app", &[("objects", objects), ("region", "cn-east-3")])
        .await;
    let error = node
        .publish(&node.pod("app", "5"))
        .await
        .expect_err("no project");
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("cn-east-3") && error.message().contains("project"),
        "{error}"
    );
}

#[tokio::test]
async fn configuration_errors_say_what_to_do() {
    let node = TestNode::with(Setup {
        region: None,
        env: Vec::new(),
        emulator: huawei::Config {
            agency: false,
            ..Default::default()
        },
        ..Setup::default()
    })
    .await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    let mount_error = |parameters: Vec<(&'static str, &'static str)>| {
        let node = &node;
        async move {
            node.api.put_account("default", "app", Some("[\"a\"]"));
            node.apply("app", &parameters).await;
            node.publish(&node.pod("app", "1"))
                .await
                .expect_err("not configured")
        }
    };
    for (parameters, code, texts) in [
        (
            vec![("objects", objects)],
            Code::FailedPrecondition,
            vec!["no region", "parameter region", "--region"],
        ),
        (
            vec![("region", "cn-north-4")],
            Code::InvalidArgument,
            vec!["has no parameter objects"],
        ),
        (
            vec![("objects", objects), ("region", "../x")],
            Code::InvalidArgument,
            vec!["parameter region"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("projectId", "a/b"),
            ],
            Code::InvalidArgument,
            vec!["parameter projectId"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("credentials", "envronment"),
            ],
            Code::InvalidArgument,
            vec!["parameter credentials", "did you mean environment?"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("credentials", "nodePublishSecretRef"),
            ],
            Code::InvalidArgument,
            vec!["nodePublishSecretRef is required, but the pod's volume does not set it"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("agency", "x"),
            ],
            Code::InvalidArgument,
            vec!["assuming an agency by name is not supported"],
        ),
        (
            vec![("objects", objects), ("regoin", "cn-north-4")],
            Code::InvalidArgument,
            vec!["unknown parameter \"regoin\"; did you mean region?"],
        ),
        (
            vec![("objects", objects), ("region", "cn-north-4")],
            Code::FailedPrecondition,
            vec!["HUAWEICLOUD_SDK_AK", "agency"],
        ),
    ] {
        let status = mount_error(parameters.clone()).await;
        assert_eq!(status.code(), code, "{parameters:?}: {status}");
        for text in texts {
            assert!(status.message().contains(text), "{text}: {status}");
        }
    }
}

#[tokio::test]
async fn without_configured_keys_the_nodes_agency_is_used() {
    let setup = Setup {
        env: Vec::new(),
        ..Setup::default()
    };
    let node = TestNode::with(setup).await;
    node.create("a", "one").await;
    node.apply_for(
        "app",
        "- {objectName: a, objectType: csms, objectVersion: latest}",
        &["a"],
    )
    .await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    let metrics = node.metrics().await;
    assert!(
        metrics.contains("dew_provider_credential_expiry_timestamp_seconds{source=\"agency\"}"),
        "{metrics}"
    );
}
