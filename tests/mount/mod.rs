//! Mounts over a real socket: the simulated driver calls the provider, which calls the emulated
//! cloud.

use std::time::Duration;

use crate::support::test_node::{Setup, TestNode};

mod ages;
mod authorize;
mod cases;
mod credentials;
mod evidence;
mod files;
mod kubelet_root;
mod names;
mod outage;
mod rejections;
mod restart;
mod revocation;
mod simulated_driver;
mod tenants;

/// A class that follows the secret `a`.
const FOLLOWS_A: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

/// A node with a pod that mounted `a` so long ago that a new pod needs a confirmation.
async fn node_with_mounted_pod(setup: Setup) -> TestNode {
    let node = TestNode::with(setup).await;
    node.create("a", "the value").await;
    node.apply_for("app", FOLLOWS_A, &["a"]).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    node.pass(Duration::from_secs(11)).await;
    node
}
