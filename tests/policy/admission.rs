//! The texts of the chart's ValidatingAdmissionPolicy are the provider's: `tests/cluster/admission` applies the
//! same cases to a real API server.

use std::collections::BTreeMap;

use dew_provider::sim::csi_driver::PodVolume;
use dew_provider::sim::huawei::{Account, Config, DEMO_PROJECT};
use serde_json::Value;

use crate::support::test_node::{Setup, TestNode};

const CASES: &str = include_str!("admission.json");

#[tokio::test]
async fn a_mount_fails_with_the_texts_of_the_admission_policy() {
    let cases: Value = serde_json::from_str(CASES).unwrap();
    let account = Account {
        projects: [
            ("cn-north-4".to_owned(), DEMO_PROJECT.to_owned()),
            ("cn-south-1".to_owned(), "b".repeat(32)),
        ]
        .into(),
        ..Account::demo()
    };
    let node = TestNode::with(Setup {
        emulator: Config {
            accounts: vec![account],
            ..Config::default()
        },
        // JSON is YAML.
        policy: Some(cases["policy"].to_string()),
        ..Setup::default()
    })
    .await;
    for name in ["a", "b", "tls", "shop.db", "common-1"] {
        node.create(name, r#"{"a": 1}"#).await;
    }
    let everything = r#"["a","b","x","y","tls","shop.db","shopXdb","common-1","common-11"]"#;
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let namespace = case["namespace"].as_str().unwrap_or("default");
        let parameters: Option<BTreeMap<String, String>> =
            serde_json::from_value(case["parameters"].clone()).unwrap();
        let mut parameters = parameters.unwrap_or_default();
        for object in case["objects"].as_array().into_iter().flatten() {
            let object =
                format!("- {{objectName: {object}, objectType: csms, objectVersion: latest}}\n");
            *parameters.entry("objects".to_owned()).or_default() += &object;
        }
        node.api.put_class(namespace, name, &parameters);
        node.api.put_account(namespace, name, Some(everything));
        node.driver.apply(namespace, name, "cce", parameters);
        let pod = PodVolume {
            namespace: namespace.into(),
            ..node.pod(name, name)
        };
        let result = node.publish(&pod).await;
        match (case["error"].as_str(), result) {
            (None, result) => result.unwrap(),
            (Some(expected), result) => {
                let error = result.expect_err(name);
                // The rest is the driver's.
                let message = error.message().split_once(" desc = ");
                assert_eq!(
                    message.map(|(_, text)| text),
                    Some(expected),
                    "{name}: {error}"
                );
            }
        }
    }
}
