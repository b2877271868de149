//! The official SDK makes every call against the emulator, and opens what the client encrypted.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use dew_provider::cloud::{AccessKeys, Caller, Cloud, CloudConfig, Credentials, Kms, NewKey, Turn};
use dew_provider::sim::huawei::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use dew_provider::util::secret_bytes::SecretBytes;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;

use super::venv;

async fn emulator() -> Emulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Emulator::start(listener, Config::default(), Clock::system()).unwrap()
}

async fn script(python: &Path, url: &str, part: &str, rest: &[&str]) -> Output {
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/kms.py"))
        .args([part, url, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, DEMO_PROJECT])
        .args(rest)
        .output();
    let output = output.await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}: {error}");
    output
}

#[tokio::test]
async fn the_sdk_makes_every_call_of_kms() {
    let Some(python) = venv::python() else { return };
    let emulator = emulator().await;
    let output = script(&python, &emulator.url(), "all", &[]).await;
    assert_eq!(output.stdout, b"done\n");
}

#[tokio::test]
async fn the_sdk_opens_what_the_client_encrypted_and_the_other_way_around() {
    let Some(python) = venv::python() else { return };
    let emulator = emulator().await;
    let url = emulator.url();
    let cloud = Cloud::new(
        CloudConfig::emulated(&url),
        &Env::default(),
        Clock::system(),
        Jitter::seeded(1),
        CloudMetrics::default(),
    );
    let kms = Kms::new(cloud.unwrap());
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "test"),
        turn: Turn::default(),
    };
    let deadline = Instant::now() + Duration::from_secs(45);
    let new = NewKey {
        alias: "test".into(),
        ..NewKey::default()
    };
    let key = kms.create_key(&caller, &new, deadline).await.unwrap();
    let (text, aad) = ("pässwörd \"2\"", Some("shop/app"));
    let plain = SecretBytes::from(text.to_owned());
    let cipher = kms.encrypt_data(&caller, &key, &plain, aad, deadline);
    let cipher = cipher.await.unwrap();
    let output = script(&python, &url, "open", &[&key, &cipher]).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    let cipher = String::from_utf8(output.stderr).unwrap();
    let opened = kms.decrypt_data(&caller, Some(&key), &cipher, aad, deadline);
    assert_eq!(opened.await.unwrap().expose(), b"from the SDK");
}
