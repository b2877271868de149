//! The official SDK against the emulator: what it creates, this project's client and Mount read.

use dew_provider::emulator::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_SECRET_KEY};
use tokio::process::Command;

use super::super::support::still::hurry;
use super::super::support::world::{World, read};
use super::venv;

/// Runs the script with what it needs to know.
async fn script(python: &std::path::Path, url: &str, part: &str) -> String {
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/csms.py"))
        .args([part, url, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, DEMO_PROJECT])
        .output();
    let output = hurry(output).await.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{part}: {out}{err}");
    out.into_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_sdk_creates_is_mounted() {
    let Some(python) = venv::python() else { return };
    let world = World::new().await;
    // The SDK signs with this machine's date.
    world.set_real_date().await;
    let url = world.emulator.url();
    assert_eq!(script(&python, &url, "create").await.trim(), "v2");
    world.set_own_date().await;
    let objects = "- {objectName: sdk-db, objectType: csms, objectVersion: latest, jmesPath: [{path: password, objectAlias: password}]}\n- {objectName: sdk-binary, objectType: csms, objectVersion: v1}";
    world
        .apply_for("app", objects, &["sdk-db", "sdk-binary"])
        .await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "password"), "pässwörd \"2\"");
    assert_eq!(
        std::fs::read(pod.target_path.join("sdk-binary")).unwrap(),
        [0, 1, 254, 255]
    );
    world.set_real_date().await;
    script(&python, &url, "read").await;
    script(&python, &url, "refused").await;
}
