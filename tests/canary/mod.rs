//! No value, key or token appears in logs of any level, errors, metrics or `Debug` output.

use std::fmt::Write as _;
use std::time::Duration;

use dew_provider::sim::huawei::DEMO_SECRET_KEY;
use serde_json::json;

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
    for (what, text) in [("logs", logs.as_str()), ("errors, metrics, Debug", &output)] {
        for secret in [CANARY, DEMO_SECRET_KEY, "Signature=", "x-security-token: "] {
            if let Some(at) = text.find(secret) {
                let around = &text[text.floor_char_boundary(at.saturating_sub(200))..at];
                panic!("{secret} is in the {what} after {around:?}");
            }
        }
    }
}
