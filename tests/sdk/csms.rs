//! The official SDK against the emulator; a Mount then reads what the SDK created.

use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_SECRET_KEY};
use tokio::process::Command;

use super::venv;
use crate::support::paused_clock::drive;
use crate::support::test_node::{TestNode, read};

/// Runs one part of `csms.py` and returns its output.
async fn script(python: &std::path::Path, url: &str, part: &str) -> String {
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/csms.py"))
        .args([part, url, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, DEMO_PROJECT])
        .output();
    let output = drive(output).await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{part}: {out}{err}");
    out.into_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn secrets_created_by_the_sdk_can_be_mounted() {
    let Some(python) = venv::python() else { return };
    let node = TestNode::new().await;
    // The SDK signs with the real date.
    node.set_real_date().await;
    let url = node.emulator.url();
    assert_eq!(script(&python, &url, "create").await.trim(), "v2");
    node.set_own_date().await;
    let objects = "- {objectName: sdk-db, objectType: csms, objectVersion: latest, jmesPath: [{path: password, objectAlias: password}]}\n- {objectName: sdk-binary, objectType: csms, objectVersion: v1}";
    node.apply_for("app", objects, &["sdk-db", "sdk-binary"])
        .await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "password"), "pässwörd \"2\"");
    assert_eq!(
        std::fs::read(pod.target_path.join("sdk-binary")).unwrap(),
        [0, 1, 254, 255]
    );
    node.set_real_date().await;
    script(&python, &url, "read").await;
    script(&python, &url, "rejected").await;
}
