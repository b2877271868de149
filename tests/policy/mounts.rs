//! What the policy allows at a Mount, with the file as it is at that moment.

use std::collections::BTreeMap;
use std::time::Duration;

use dew_provider::kube::AllowListMode;
use dew_provider::sim::csi_driver::PodVolume;
use dew_provider::sim::huawei::{Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_SECRET_KEY};
use tonic::{Code, Status};

use crate::support::test_node::{Setup, TestNode, read};

const A: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";
const B: &str = "- {objectName: b, objectType: csms, objectVersion: latest}";
const ALLOWS_A: &str = "version: 1\nrules: [{namespaces: [default], secrets: [a]}]";
const ALLOWS_ALL: &str = "version: 1\nrules: [{namespaces: [\"*\"], secrets: [\"*\"]}]";
const ALLOWS_NOTHING: &str = "version: 1\nrules: []";

/// A node with the secrets `a` and `b`, whose ServiceAccounts allow both.
async fn node_with(policy: &str, setup: Setup) -> TestNode {
    let node = TestNode::with(Setup {
        policy: Some(policy.to_owned()),
        ..setup
    })
    .await;
    for name in ["a", "b"] {
        node.create(name, "one").await;
    }
    node
}

async fn node(policy: &str) -> TestNode {
    node_with(policy, Setup::default()).await
}

/// Mounts a new pod with a class of these parameters.
async fn mount(node: &TestNode, uid: &str, parameters: &[(&str, &str)]) -> Result<(), Status> {
    node.apply("app", parameters).await;
    node.api
        .put_account("default", "app", Some("[\"a\", \"b\"]"));
    node.publish(&node.pod("app", uid)).await
}

fn denied(result: Result<(), Status>) -> String {
    let error = result.expect_err("denied");
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    error.message().to_owned()
}

#[tokio::test]
async fn a_secret_that_no_rule_allows_is_denied_by_name_and_nothing_is_fetched() {
    let node = node(ALLOWS_A).await;
    mount(&node, "1", &[("objects", A)]).await.unwrap();
    node.clear_calls().await;
    let both = format!("{A}\n{B}");
    let message = denied(mount(&node, "2", &[("objects", &both)]).await);
    // The rest is the driver's.
    let (_, message) = message.split_once(" desc = ").unwrap();
    assert_eq!(
        message,
        "SecretProviderClass \"app\", object \"b\": no rule of the operator's policy allows namespace \
         \"default\" to use this secret in region cn-north-4: ask the operator to add it to the policy \
         (chart value policy)"
    );
    assert_eq!(node.calls("ShowSecretVersion").await, 0);
}

#[tokio::test]
async fn a_rule_holds_for_its_namespaces_alone() {
    let policy = "version: 1\nrules: [{namespaces: [\"shop-*\"], secrets: [\"*\"]}]";
    let node = node(policy).await;
    let parameters: BTreeMap<String, String> = [("objects".to_owned(), A.to_owned())].into();
    for (namespace, allowed) in [("shop-eu", true), ("shop", false), ("xshop-eu", false)] {
        node.api.put_class(namespace, "app", &parameters);
        node.api.put_account(namespace, "app", Some("[\"a\"]"));
        node.driver
            .apply(namespace, "app", "cce", parameters.clone());
        let pod = PodVolume {
            namespace: namespace.into(),
            ..node.pod("app", namespace)
        };
        let result = node.publish(&pod).await;
        if allowed {
            result.unwrap();
        } else {
            assert!(denied(result).contains(&format!("namespace {namespace:?}")));
        }
    }
}

#[tokio::test]
async fn objects_that_a_pod_sets_are_checked() {
    let node = node(ALLOWS_A).await;
    mount(&node, "1", &[("objects", A)]).await.unwrap();
    let mut pod = node.pod("app", "2");
    pod.attributes.insert("objects".into(), B.into());
    assert!(denied(node.publish(&pod).await).contains("object \"b\""));
}

#[tokio::test]
async fn the_policy_holds_without_lists_and_for_pods_with_their_own_keys() {
    let node = node_with(
        ALLOWS_A,
        Setup {
            allow_list: AllowListMode::Off,
            ..Setup::default()
        },
    )
    .await;
    assert!(denied(mount(&node, "1", &[("objects", B)]).await).contains("object \"b\""));
    let mut pod = node.pod("app", "2");
    let keys = [
        ("accessKey".to_owned(), DEMO_ACCESS_KEY.to_owned()),
        ("secretKey".to_owned(), DEMO_SECRET_KEY.to_owned()),
    ];
    pod.secrets = Some(keys.into());
    assert!(denied(node.publish(&pod).await).contains("object \"b\""));
    node.set_policy(ALLOWS_ALL).await;
    node.publish(&pod).await.unwrap();
}

#[tokio::test]
async fn the_region_is_the_one_that_is_used_and_the_failover_region_counts_as_well() {
    let north = "version: 1\nrules: [{namespaces: [default], secrets: [a], regions: [cn-north-4]}]";
    let south = "b".repeat(32);
    let account = Account {
        projects: [
            ("cn-north-4".to_owned(), DEMO_PROJECT.to_owned()),
            ("cn-south-1".to_owned(), south),
        ]
        .into(),
        ..Account::demo()
    };
    let setup = Setup {
        emulator: Config {
            accounts: vec![account],
            ..Config::default()
        },
        ..Setup::default()
    };
    let node = node_with(north, setup).await;
    // The provider's region.
    mount(&node, "1", &[("objects", A)]).await.unwrap();
    let with = |region, failover| {
        [
            ("objects", A),
            ("region", region),
            ("failoverRegion", failover),
        ]
    };
    let message = denied(mount(&node, "2", &with("cn-south-1", "")).await);
    assert!(message.contains("in region cn-south-1: ask"), "{message}");
    mount(&node, "3", &with("cn-north-4", "")).await.unwrap();
    let message = denied(mount(&node, "4", &with("cn-north-4", "cn-south-1")).await);
    assert!(message.contains("in region cn-south-1: ask"), "{message}");
    node.set_policy(&north.replace("cn-north-4", "\"cn-*\""))
        .await;
    mount(&node, "5", &with("cn-north-4", "cn-south-1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn rules_with_projects_need_a_project_that_is_known() {
    let rule = |project: &str| {
        format!(
            "version: 1\nrules: [{{namespaces: [default], secrets: [a], projects: [\"{project}\"]}}]"
        )
    };
    let node = node(&rule(DEMO_PROJECT)).await;
    // It follows from the keys, so the provider does not know it yet.
    let message = denied(mount(&node, "1", &[("objects", A)]).await);
    assert!(
        message.contains("only in certain projects: set projectId"),
        "{message}"
    );
    mount(&node, "2", &[("objects", A), ("projectId", DEMO_PROJECT)])
        .await
        .unwrap();
    let message = denied(mount(&node, "3", &[("objects", A), ("projectId", "other")]).await);
    assert!(
        message.contains("cn-north-4, project other: ask"),
        "{message}"
    );

    drop(node);
    // The provider's project counts in the provider's region.
    let node = node_with(
        &rule("0123*"),
        Setup {
            project: Some(DEMO_PROJECT),
            ..Setup::default()
        },
    )
    .await;
    mount(&node, "1", &[("objects", A)]).await.unwrap();
    let failover = [("objects", A), ("failoverRegion", "cn-south-1")];
    let message = denied(mount(&node, "2", &failover).await);
    assert!(
        message.contains("in region cn-south-1 only in certain projects"),
        "{message}"
    );
}

#[tokio::test]
async fn a_tightened_policy_stops_new_values_in_mounted_volumes_and_a_loosened_one_allows_them() {
    let node = node(ALLOWS_A).await;
    mount(&node, "1", &[("objects", A)]).await.unwrap();
    let pod = node.pod("app", "1");
    node.set_policy(ALLOWS_NOTHING).await;
    node.put("a", "two", &[]).await;
    denied(mount(&node, "2", &[("objects", A)]).await);
    node.pass(Duration::from_secs(300)).await;
    // The driver hides the error: the pod keeps its files and gets no new ones.
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    let events = node.api.events();
    let notes: Vec<&str> = events.iter().filter_map(|e| e["note"].as_str()).collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("no rule of the operator's policy allows")),
        "{notes:?}"
    );
    node.set_policy(ALLOWS_ALL).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "two");
    mount(&node, "3", &[("objects", B)]).await.unwrap();
}

#[tokio::test]
async fn a_file_that_becomes_wrong_leaves_the_last_good_policy_in_force() {
    let node = node(ALLOWS_A).await;
    let is_invalid = async || {
        let metrics = node.metrics().await;
        let invalid =
            |value: &str| metrics.contains(&format!("dew_provider_policy_invalid {value}\n"));
        assert!(invalid("0") || invalid("1"), "{metrics}");
        invalid("1")
    };
    assert!(!is_invalid().await);
    let broken = [
        "",
        "rules: [",
        "version: 1\nrules: [{namespaces: [\"*\"], secrets: [\"*\"], regoins: [x]}]",
        &"#".repeat(dew_provider::policy::MAX_POLICY_BYTES + 1),
    ];
    for (uid, text) in broken.iter().enumerate() {
        node.set_policy(text).await;
        assert!(is_invalid().await, "{uid}");
        mount(&node, &format!("a{uid}"), &[("objects", A)])
            .await
            .unwrap();
        denied(mount(&node, &format!("b{uid}"), &[("objects", B)]).await);
        node.set_policy(ALLOWS_A).await;
        assert!(!is_invalid().await, "{uid}");
    }
    // Also one that disappears, until it is back.
    let path = node.launch.config.policy.clone().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    node.pass(Duration::from_secs(10)).await;
    denied(mount(&node, "c", &[("objects", B)]).await);
    assert!(is_invalid().await);
    std::fs::remove_dir(&path).unwrap();
    node.set_policy(ALLOWS_ALL).await;
    assert!(!is_invalid().await);
    mount(&node, "d", &[("objects", B)]).await.unwrap();
}

/// kubelet writes a new directory and moves the symlink `..data`; the file itself is a symlink that stays.
#[tokio::test]
async fn a_config_map_that_kubelet_updates_is_read_again() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let write = |version: &str, text: &str| {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        std::fs::write(folder.path().join(version).join("policy.yaml"), text).unwrap();
        symlink(version, folder.path().join("..data.next")).unwrap();
        std::fs::rename(
            folder.path().join("..data.next"),
            folder.path().join("..data"),
        )
        .unwrap();
    };
    write("..1", ALLOWS_NOTHING);
    symlink("..data/policy.yaml", folder.path().join("policy.yaml")).unwrap();
    let node = node(ALLOWS_ALL).await;
    let path = folder.path().join("policy.yaml");
    let node = node
        .restart_provider(|launch| launch.config.policy = Some(path))
        .await;
    denied(mount(&node, "1", &[("objects", A)]).await);
    write("..2", ALLOWS_A);
    std::fs::remove_dir_all(folder.path().join("..1")).unwrap();
    node.pass(Duration::from_secs(10)).await;
    let mut result = Ok(());
    for uid in ["2", "3"] {
        // The first one lets the provider's tasks run.
        result = mount(&node, uid, &[("objects", A)]).await;
    }
    result.unwrap();
}

#[tokio::test]
async fn a_class_whose_region_is_wrong_is_invalid_and_not_denied() {
    let node = node(ALLOWS_A).await;
    let result = mount(&node, "1", &[("objects", A), ("region", "CN")]).await;
    let error = result.expect_err("invalid");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("parameter region"), "{error}");
}
