//! No value, key or token appears in logs of any level, errors, metrics or `Debug` output.

use std::fmt::Write as _;
use std::time::Duration;

use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Kms, NewKey, SigningAlgorithm, Turn,
};
use dew_provider::sim::huawei::{
    Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use dew_provider::util::secret_bytes::SecretBytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::logs::Logs;
use crate::support::test_node::{Setup, TestNode};

/// Part of every secret value: in plain text, in JSON values and in JSON keys.
const CANARY: &str = "CANARY-5f1d0c";

/// Every way of reading an object, whether or not it succeeds.
const OBJECTS: [&str; 9] = [
    "- {objectName: s, objectType: csms, objectVersion: latest}",
    "- {objectName: s, objectType: csms, objectVersion: v1}",
    "- {objectName: s, objectType: csms, stage: SYSCURRENT}",
    "- {objectName: s, objectType: csms, objectVersion: latest, encoding: hex}",
    "- {objectName: s, objectType: csms, objectVersion: latest, encoding: base64}",
    "- {objectName: s, objectType: csms, objectVersion: latest, allKeys: true}",
    "- {objectName: j, objectType: csms, objectVersion: latest, allKeys: true}",
    "- {objectName: j, objectType: csms, objectVersion: latest, jmesPath: [{path: \"abs(k)\", objectAlias: x}]}",
    "- {objectName: j, objectType: csms, objectVersion: latest, jmesPath: [{path: k, objectAlias: x}]}",
];

#[tokio::test]
async fn no_secret_appears_in_any_output() {
    let logs = Logs::capture();
    let mut output = String::new();
    for agency in [false, true] {
        let setup = Setup::default();
        let env = if agency {
            Vec::new()
        } else {
            setup.env.clone()
        };
        let node = TestNode::with(Setup { env, ..setup }).await;
        node.create("s", format!("{CANARY} text")).await;
        let json = format!(r#"{{"k":"{CANARY}","{CANARY}/b":1,"n":["{CANARY}"]}}"#);
        node.create("j", json).await;
        let faults = [
            json!({}),
            json!({"status": 429}),
            json!({"status": 502, "garbage": "html"}),
            json!({"status": 403, "code": "CSMS.0302"}),
            json!({"reset": true}),
            json!({"garbage": "json"}),
            json!({"truncate": 150}),
            json!({"wrong_content_length": true}),
            json!({"slow_body": {"chunk_bytes": 10, "delay_ms": 1000}}),
            json!({"clock_skew_seconds": 4000}),
            json!({"expire_tokens": true}),
        ];
        let mut uid = 0;
        for fault in faults {
            node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault}))
                .await;
            for objects in OBJECTS {
                uid += 1;
                node.apply_for("app", objects, &["s", "j"]).await;
                let mut pod = node.pod("app", &uid.to_string());
                pod.attributes.insert(
                    "csi.storage.k8s.io/serviceAccount.tokens".into(),
                    format!("{{\"a\":\"{CANARY}\"}}"),
                );
                if uid % 3 == 0 {
                    pod.secrets = Some(
                        [
                            ("accessKey".to_owned(), "DEMOACCESSKEY0000001".to_owned()),
                            ("secretKey".to_owned(), CANARY.to_owned()),
                        ]
                        .into(),
                    );
                }
                writeln!(output, "{:?}", node.publish(&pod).await).unwrap();
            }
            node.clear_faults().await;
            node.pass(Duration::from_secs(200)).await;
        }
        output += &node.metrics().await;
        write!(output, "{:?} {:?}", node.provider, node.driver).unwrap();
    }
    let logs = logs.text();
    assert!(
        logs.contains("mounted") && logs.contains("cloud call") && logs.contains("mount failed")
    );
    assert_clean(&logs, &output);
}

fn assert_clean(logs: &str, output: &str) {
    for (what, text) in [("logs", logs), ("errors, metrics, Debug", output)] {
        for secret in [CANARY, DEMO_SECRET_KEY, "Signature=", "x-security-token: "] {
            if let Some(at) = text.find(secret) {
                let around = &text[text.floor_char_boundary(at.saturating_sub(200))..at];
                panic!("{secret} is in the {what} after {around:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_key_or_text_of_kms_appears_in_any_output() {
    let logs = Logs::capture();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let emulator = Emulator::start(listener, Config::default(), Clock::system()).unwrap();
    let config = CloudConfig::emulated(&emulator.url());
    let (clock, jitter, metrics) = (Clock::system(), Jitter::seeded(1), CloudMetrics::default());
    let cloud = Cloud::new(config, &Env::default(), clock, jitter, metrics).unwrap();
    let kms = Kms::new(cloud);
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "test"),
        turn: Turn::default(),
    };
    let soon = || Instant::now() + Duration::from_secs(45);
    let new = NewKey {
        alias: "canary".into(),
        ..NewKey::default()
    };
    let id = kms.create_key(&caller, &new, soon()).await.unwrap();
    let text = SecretBytes::from(CANARY.to_owned());
    let sealed = kms
        .encrypt_data(&caller, &id, &text, None, soon())
        .await
        .unwrap();
    let wrapped = kms
        .encrypt_data_key(&caller, &id, &text, None, soon())
        .await
        .unwrap();
    let hex = data_encoding::HEXLOWER.encode(CANARY.as_bytes());
    let base64 = data_encoding::BASE64.encode(CANARY.as_bytes());
    let mut output = String::new();
    let quoting = json!({"key_id": id, "plain_text": CANARY, "cipher_text": CANARY, "data_key": CANARY, "signature_valid": CANARY});
    for fault in [
        json!({}),
        json!({"status": 502, "garbage": "html"}),
        json!({"status": 400, "code": "KMS.2201"}),
        json!({"truncate": 40}),
        json!({"wrong_content_length": true}),
        json!({"body": quoting.to_string()}),
        json!({"body": format!("\"{CANARY}\"")}),
    ] {
        emulator
            .add_faults(&json!({ "fault": fault }).to_string())
            .unwrap();
        let algorithm = SigningAlgorithm::RsaPssSha256;
        let (caller, id) = (&caller, id.as_str());
        let opened = kms
            .decrypt_data(caller, Some(id), &sealed, None, soon())
            .await;
        let unwrapped = kms
            .decrypt_data_key(caller, id, &wrapped, text.len(), None, soon())
            .await;
        let encrypted = kms.encrypt_data(caller, id, &text, Some(""), soon()).await;
        let made = kms.create_data_key(caller, id, 256, None, soon()).await;
        let again = kms.encrypt_data_key(caller, id, &text, None, soon()).await;
        let random = kms.random(caller, 64, soon()).await;
        let verified = kms
            .verify(caller, id, algorithm, &[0; 32], &[1], soon())
            .await;
        write!(
            output,
            "{opened:?} {unwrapped:?} {encrypted:?} {again:?} {random:?} {verified:?}"
        )
        .unwrap();
        if let Ok(made) = &made {
            let plain = data_encoding::HEXLOWER.encode(made.plain.expose());
            assert!(!logs.text().contains(&plain));
        }
        write!(output, "{made:?} {kms:?} {emulator:?}").unwrap();
        emulator.clear_faults();
    }
    let logs = logs.text();
    assert!(logs.contains("cloud call") && output.contains("KMS.2201"));
    assert_clean(&logs, &output);
    for secret in [hex, base64] {
        assert!(!logs.contains(&secret) && !output.contains(&secret));
    }
}
