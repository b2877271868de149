//! `--kubelet-root`: a volume outside of kubelet's root directory is refused.

use std::path::PathBuf;
use std::time::Duration;

use dew_provider::node::socket;
use dew_provider::proto::MountRequest;
use tonic::{Code, Status};

use super::FOLLOWS_A;
use crate::support::paused_clock::drive;
use crate::support::test_node::{TestNode, read};

/// A node whose provider has this `--kubelet-root`, relative to the test's folder.
async fn node_with_root(root: Option<&str>) -> TestNode {
    let node = TestNode::new().await;
    node.create("a", "the value").await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    let root = root.map(|root| format!("{}/{root}", node.folder.path().display()));
    node.restart_provider(|launch| {
        launch.config.kubelet_root = root.map(|root| root.parse().unwrap());
    })
    .await
}

/// Mounts a new volume at this path, relative to the test's folder.
async fn mount(node: &TestNode, target: &str) -> Result<(), Status> {
    let mut pod = node.pod("app", target);
    // Not `join`, which would keep what is under test but not `//`.
    pod.target_path = PathBuf::from(format!("{}/{target}", node.folder.path().display()));
    node.publish(&pod).await?;
    assert_eq!(read(&pod, "a"), "the value");
    Ok(())
}

#[tokio::test]
async fn volumes_below_the_root_are_mounted() {
    for root in ["kubelet", "kubelet/", "./kubelet//", "other/../kubelet"] {
        let node = node_with_root(Some(root)).await;
        for target in [
            "kubelet/pods/1/volumes/kubernetes.io~csi/v/mount",
            "kubelet//pods/./2/mount",
            "kubelet/pods/3/mount/",
            "kubelet/x",
        ] {
            let result = mount(&node, target).await;
            assert!(result.is_ok(), "{root}, {target}: {result:?}");
        }
    }
}

#[tokio::test]
async fn other_volumes_are_refused_with_both_paths_and_the_value_to_set() {
    let node = node_with_root(Some("kubelet")).await;
    let folder = node.folder.path().display().to_string();
    std::fs::create_dir_all(node.folder.path().join("kubelet/pods")).unwrap();
    for target in [
        "real/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount",
        // A name that only starts alike.
        "kubelet2/pods/1/mount",
        "kubele/pods/1/mount",
        "kubelet/../kubelet2/pods/1/mount",
        "kubelet/pods/../../pods/1/mount",
    ] {
        let calls = node.calls("ShowSecretVersion").await;
        let error = mount(&node, target).await.expect_err(target);
        assert_eq!(error.code(), Code::FailedPrecondition, "{target}: {error}");
        for expected in [
            &format!("{folder}/{target}"),
            &format!("\"{folder}/kubelet\" (--kubelet-root)"),
            "set the chart values kubeletRootDir and secrets-store-csi-driver.linux.kubeletRootDir",
        ] {
            assert!(error.message().contains(expected), "{target}: {error}");
        }
        assert_eq!(
            node.calls("ShowSecretVersion").await,
            calls,
            "{target}: no call to the cloud"
        );
        // The path of kubelet's own layout says where its root is.
        let likely = format!("which seems to be \"{folder}/real/kubelet\"");
        assert_eq!(
            error.message().contains(&likely),
            target.starts_with("real/"),
            "{error}"
        );
        assert!(!error.message().contains("the value"), "{error}");
    }
}

/// kubelet tries again half a second later and removes the directory before, but on the node: in the driver's
/// container it stays, and the driver answers OK for a directory younger than `rotationPollInterval`.
#[tokio::test]
async fn the_driver_asks_again_when_kubelet_retries() {
    let node = node_with_root(Some("kubelet")).await;
    let pod = node.pod("app", "1");
    for attempt in 0..3 {
        let published = node
            .driver
            .node_publish_volume(&pod, Duration::from_secs(120));
        let error = drive(published).await.expect_err("refused");
        assert_eq!(error.code(), Code::FailedPrecondition, "{attempt}: {error}");
        assert!(pod.target_path.exists());
        node.pass(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn without_a_root_nothing_is_checked() {
    let node = node_with_root(None).await;
    for target in ["kubelet2/pods/1/mount", "x"] {
        mount(&node, target).await.unwrap();
    }
}

/// The driver sends whatever kubelet gave it.
#[tokio::test]
async fn odd_paths_are_refused_with_a_short_message_on_one_line() {
    let node = node_with_root(Some("kubelet")).await;
    let mut client = socket::client(&node.provider.sockets[0]);
    let root = node.folder.path().join("kubelet").display().to_string();
    let attributes = r#"{"csi.storage.k8s.io/pod.name":"p","csi.storage.k8s.io/pod.namespace":"default",
        "csi.storage.k8s.io/pod.uid":"u","csi.storage.k8s.io/serviceAccount.name":"app",
        "secretProviderClass":"app","objects":"- {objectName: a, objectType: csms, objectVersion: latest}"}"#;
    for target in [
        String::new(),
        "/".to_owned(),
        "pods/1/mount".to_owned(),
        root.clone(),
        format!("{root}/pods/../"),
        "/x/\u{1b}[31m\n\u{202e}".repeat(10_000),
        format!(
            "/{}/pods/1/volumes/kubernetes.io~csi/v/mount",
            "é".repeat(10_000)
        ),
    ] {
        let message = MountRequest {
            attributes: attributes.into(),
            target_path: target.clone(),
            permission: "420".into(),
            ..MountRequest::default()
        };
        let error = drive(client.mount(message)).await.expect_err("refused");
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("(--kubelet-root)"), "{error}");
        assert!(error.message().len() < 4096, "{}", error.message().len());
        assert!(!error.message().contains(char::is_control), "{error}");
    }
}
