//! Hostile or malformed input fails with a clear error, and the process survives.

use std::fmt::Write as _;

use dew_provider::node::socket;
use dew_provider::proto::MountRequest;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::paused_clock::drive;
use crate::support::test_node::TestNode;

mod answers;
mod expressions;
mod memory;
mod properties;
mod tenants;

/// How many random cases a test tries: `by_default`, or what `DEW_CASES` says.
fn cases(by_default: usize) -> usize {
    std::env::var("DEW_CASES").map_or(by_default, |text| text.parse().unwrap())
}

/// Sends a Mount that no driver would send.
async fn mount(node: &TestNode, attributes: String, secrets: &str) -> Result<(), Status> {
    let mut client = socket::client(&node.provider.sockets[0]);
    let request = MountRequest {
        attributes,
        secrets: secrets.into(),
        target_path: "/x".into(),
        permission: "420".into(),
        ..MountRequest::default()
    };
    drive(client.mount(request)).await.map(drop)
}

/// Mounts a class with invalid `objects` and returns the error message.
async fn rejection(node: &TestNode, objects: &str) -> String {
    node.apply_for("app", objects, &["a"]).await;
    let attributes = json!({
        "objects": objects,
        "secretProviderClass": "app",
        "csi.storage.k8s.io/pod.name": "p",
        "csi.storage.k8s.io/pod.namespace": "default",
        "csi.storage.k8s.io/serviceAccount.name": "app",
    });
    let error = mount(node, attributes.to_string(), "null")
        .await
        .expect_err(objects);
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().len() < 16_000);
    error.message().to_owned()
}

fn object(fields: &str) -> String {
    format!("- {{objectName: a, objectType: csms, objectVersion: latest, {fields}}}")
}

#[tokio::test]
async fn unsafe_file_names_and_modes_are_rejected() {
    let node = TestNode::new().await;
    let long = format!("objectAlias: {}", "x".repeat(300));
    for (fields, text) in [
        ("objectAlias: ../etc/passwd", "component \"..\""),
        ("objectAlias: a/../../b", "component \"..\""),
        ("objectAlias: /etc/passwd", "relative"),
        ("objectAlias: \"a\\0b\"", "control characters"),
        ("objectAlias: \"a\\nb\"", "control characters"),
        ("objectAlias: a//b", "must not contain //"),
        ("objectAlias: a/", "end in /"),
        ("objectAlias: ..data", "must not start with .."),
        ("objectAlias: ./a", "component \".\""),
        ("objectAlias: \"\"", "must not be empty"),
        ("objectAlias: 'a\\b'", "backslash"),
        (&long, "component too long: 300 bytes (limit 255)"),
        ("filePermission: \"0000\"", "lets nobody read"),
        ("filePermission: \"4755\"", "special bits"),
        ("filePermission: \"rw\"", "not a file mode"),
        ("objectNam: x", "did you mean objectName?"),
    ] {
        let message = rejection(&node, &object(fields)).await;
        assert!(message.contains(text), "{fields}: {message}");
        assert!(
            message.contains("SecretProviderClass \"app\": objects line 1"),
            "{message}"
        );
    }
    assert_eq!(node.calls("ShowSecretVersion").await, 0);
}

#[tokio::test]
async fn hostile_yaml_is_rejected() {
    let node = TestNode::new().await;
    // In an unknown field, whose value is skipped.
    let mut bomb = String::from("- objectName: a\n  x:\n  - &a [x,x,x,x,x,x,x,x,x]\n");
    for level in b'b'..b'k' {
        let (this, last) = (level as char, (level - 1) as char);
        let refs = vec![format!("*{last}"); 9].join(",");
        writeln!(bomb, "  - &{this} [{refs}]").unwrap();
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_block: String = (0..500).map(|i| format!("{}- \n", " ".repeat(i))).collect();
    let huge = object(&format!("objectAlias: {}", "x".repeat(300 * 1024)));
    let many: String = (0..201)
        .map(|i| format!("- {{objectName: a{i}, objectType: csms, objectVersion: v1}}\n"))
        .collect();
    for (yaml, text) in [
        (bomb.as_str(), "too large or too deeply nested"),
        (&deep, "nested too deeply"),
        (&deep_block, "expected fields"),
        (&huge, "list too large: 307273 bytes (limit 262144)"),
        (&many, "too many objects: 201 (limit 200)"),
        ("- {objectName: a, objectName: b}", "objectName"),
        ("objectName: a", "list"),
        ("- a\n- b", "found \"a\", expected fields"),
        ("", "empty"),
        (
            "- {objectName: [a], objectType: csms}",
            "objects line 1, objectName: found a list, expected text",
        ),
        (
            "- !!python/object:os.system {objectName: a}",
            "objectType: missing",
        ),
        ("\u{0}", "must not begin with"),
        ("- &x {objectName: *x}", "an alias inside of its own anchor"),
        ("{{{{", "a bracket is not closed"),
    ] {
        let message = rejection(&node, yaml).await;
        assert!(message.contains(text), "{:.80}: {message}", yaml);
    }
}

/// The CRD requires nothing, so a tenant can store any of these.
#[tokio::test]
async fn classes_of_any_json_stop_nobody() {
    use crate::support::api_server::{CLASSES, RECORDS};
    let node = TestNode::new().await;
    let specs = [
        json!(null),
        json!({}),
        json!(5),
        json!("text"),
        json!([{}]),
        json!({"provider": null, "parameters": null}),
        json!({"provider": 5, "parameters": [1]}),
        json!({"provider": "cce", "parameters": {"objects": null, "region": 5, "projectId": {}}}),
        json!({"provider": "cce", "parameters": {"objects": "- {"}}),
        json!({"provider": "other", "parameters": {"objects": "x".repeat(1 << 20)}}),
    ];
    for (index, spec) in specs.iter().enumerate() {
        let class = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
            "metadata": {"namespace": "tenant", "name": format!("class-{index}"), "uid": index.to_string()},
            "spec": spec,
        });
        node.api.0.put(CLASSES, class);
    }
    let bare = json!({
        "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
        "metadata": {"namespace": "tenant", "name": "bare", "uid": "bare"},
    });
    node.api.0.put(CLASSES, bare);
    for status in [json!(null), json!({"secretProviderClassName": null})] {
        let record = json!({
            "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
            "metadata": {"namespace": "tenant", "name": "record", "uid": "r"},
            "status": status,
        });
        node.api.0.put(RECORDS, record);
    }
    // A restarted provider must list all of them before it is ready.
    let node = node.restart_provider(|_| {}).await;
    node.pass(std::time::Duration::from_secs(60)).await;
    assert_eq!(node.page("readyz").await.status, 200);
    node.create("a", "the value").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.apply_for("app", objects, &["a"]).await;
    let pod = node.pod("app", "1");
    node.publish(&pod).await.unwrap();
    assert_eq!(crate::support::test_node::read(&pod, "a"), "the value");
    // The same after a change that the watch delivers.
    let objects = "- {objectName: a, objectType: csms, objectVersion: v1}";
    node.apply_for("app", objects, &["a"]).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
}

/// Each problem has texts of the tenant, so their number and length are bounded.
#[tokio::test]
async fn lists_with_many_problems_make_short_errors() {
    let node = TestNode::new().await;
    let name = "n".repeat(5_000);
    let fields: String = (0..9_000).map(|i| format!(", f{i}: 1")).collect();
    let many_objects: String = (0..200)
        .map(|i| format!("- {{objectName: '{i} {}'}}\n", "x".repeat(1_000)))
        .collect();
    for objects in [
        format!("- {{objectName: {name}{fields}}}"),
        format!("- {{objectName: a, {}: 1}}", "y".repeat(200_000)),
        format!(
            "- {{objectName: a, objectVersion: {}}}",
            "z".repeat(200_000)
        ),
        format!("- {{objectName: a, encoding: {}}}", "z".repeat(200_000)),
        format!(
            "- {{objectName: a, filePermission: {}}}",
            "7".repeat(200_000)
        ),
        many_objects,
    ] {
        let message = rejection(&node, &objects).await;
        assert!(message.len() <= 4096, "{}: {message:.200}", message.len());
    }
    let message = rejection(&node, &format!("- {{objectName: a{fields}}}")).await;
    assert!(message.contains("more problems"), "{message}");
}

#[tokio::test]
async fn hostile_expressions_are_rejected_or_harmless() {
    let node = TestNode::new().await;
    node.create("a", r#"{"k":"v"}"#).await;
    let expression = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        object(&format!("jmesPath: [{{path: {quoted}, objectAlias: x}}]"))
    };
    let message = rejection(&node, &expression(&"a".repeat(513))).await;
    assert!(
        message.contains("expression too long: 513 bytes (limit 512)"),
        "{message}"
    );
    let message = rejection(&node, &expression("a[")).await;
    assert!(message.contains("invalid JMESPath expression"), "{message}");
    // Each step doubles the value, so the result would exceed any memory.
    for step in ["[@,@]", "{a:@,b:@}", "map(&[@,@],[@])"] {
        let text = vec![step; 512 / (step.len() + 1)].join("|");
        let message = rejection(&node, &expression(&text)).await;
        assert!(
            message.contains("could copy the secret more than 64 times"),
            "{message}"
        );
    }
    // Too many files of one secret are rejected before they are created.
    let items = |count: usize| {
        let items: Vec<_> = (0..count)
            .map(|i| format!("{{path: '@', objectAlias: f{i}}}"))
            .collect();
        object(&format!("jmesPath: [{}]", items.join(", ")))
    };
    let message = rejection(&node, &items(201)).await;
    assert!(
        message.contains("too many items: 201 (limit 200)"),
        "{message}"
    );
    // Nesting as deep as 512 bytes allow may fail in any step, but must not crash the process.
    for (open, close) in [
        ("!", ""),
        ("(", ")"),
        ("a.", ""),
        ("a|", ""),
        ("a||", ""),
        ("[", "]"),
        ("a[", "]"),
        ("{a:", "}"),
        ("abs(", ")"),
        ("not_null(", ")"),
    ] {
        let depth = 511 / (open.len() + close.len());
        let text = format!("{}a{}", open.repeat(depth), close.repeat(depth));
        node.apply_for("deep", &expression(&text), &["a"]).await;
        let result = node.publish(&node.pod("deep", "1")).await;
        // Some of these, such as nested braces, are valid.
        if let Err(error) = result {
            let expected = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::FailedPrecondition,
            ];
            assert!(expected.contains(&error.code()), "{open}: {error}");
        }
    }
    node.apply_for("app", &object(""), &["a"]).await;
    node.publish(&node.pod("app", "2")).await.unwrap();
}

#[tokio::test]
async fn malformed_requests_are_rejected() {
    let node = TestNode::new().await;
    let big = json!({ "x": "y".repeat(1024 * 1024) }).to_string();
    let nested = format!("{{\"x\": {}", "[".repeat(100_000));
    for (attributes, secrets, text) in [
        (
            big.as_str(),
            "null",
            "attributes too large: 1048584 bytes (limit 1048576)",
        ),
        (&nested, "null", "attributes are not a JSON object"),
        ("", "null", "attributes are not a JSON object"),
        ("null", "null", "attributes are not a JSON object"),
        ("[1]", "null", "attributes are not a JSON object"),
        (r#"{"objects": 1}"#, "null", "not a string"),
        (r#"{"objects": "x", "objects": "y"}"#, "null", "twice"),
        ("{}", "[]", "secrets are not a JSON object"),
        ("{}", "{\"a\":", "secrets are not a JSON object"),
        (
            "{}",
            &"x".repeat(70_000),
            "secrets too large: 70000 bytes (limit 65536)",
        ),
        ("{}", "null", "the request has no SecretProviderClass"),
    ] {
        let error = mount(&node, attributes.to_owned(), secrets)
            .await
            .expect_err(text);
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(text), "{text}: {error}");
    }
    // A mount without a pod, which the sync controller could send, has no ServiceAccount that allows
    // anything.
    let without_pod = json!({"objects": object(""), "secretProviderClass": "app"}).to_string();
    let error = mount(&node, without_pod, "{}").await.expect_err("no pod");
    assert!(
        [Code::InvalidArgument, Code::NotFound].contains(&error.code()),
        "{error}"
    );
}

#[tokio::test]
async fn files_over_the_drivers_limit_are_rejected_before_the_driver_gets_them() {
    let node = TestNode::new().await;
    let names: Vec<String> = (0..200).map(|i| format!("big{i}")).collect();
    let mut objects = String::new();
    let value = "x".repeat(32_000);
    for name in &names {
        node.create(name, value.as_str()).await;
        writeln!(
            objects,
            "- {{objectName: {name}, objectType: csms, objectVersion: latest}}"
        )
        .unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    node.apply_for("big", &objects, &names).await;
    let error = node
        .publish(&node.pod("big", "1"))
        .await
        .expect_err("6 MiB");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    for text in [
        "driver accepts at most 4128768 bytes",
        "several SecretProviderClasses",
    ] {
        assert!(error.message().contains(text), "{error}");
    }
    // The driver accepts files that just fit.
    let fits: String = objects
        .lines()
        .take(128)
        .flat_map(|line| [line, "\n"])
        .collect();
    node.apply_for("fits", &fits, &names).await;
    node.publish(&node.pod("fits", "2")).await.unwrap();
}

#[tokio::test]
async fn a_panic_fails_only_its_own_mount() {
    use dew_provider::cloud::CloudConfig;
    use dew_provider::kube::AllowListMode;
    use dew_provider::serve::{self, Dependencies, ServeConfig};
    use dew_provider::util::clock::{Clock, Jitter};
    use dew_provider::util::env::Env;
    // The clock panics in the middle of a mount, when the call is signed.
    let dir = tempfile::tempdir().unwrap();
    let config = ServeConfig {
        region: Some("cn-north-4".parse().unwrap()),
        project: Some("p".into()),
        allow_list: AllowListMode::Off,
        ..ServeConfig::emulated(
            dir.path().into(),
            CloudConfig::emulated("http://127.0.0.1:9"),
        )
    };
    let env = [("HUAWEICLOUD_SDK_AK", "a"), ("HUAWEICLOUD_SDK_SK", "b")];
    let dependencies = Dependencies {
        env: Env::from_pairs(env),
        clock: Clock::from_fn(|| panic!("CANARY")),
        jitter: Jitter::seeded(1),
        dial: dew_provider::cloud::tcp(),
        kube: None,
    };
    let handle = serve::start(config, dependencies).await.unwrap();
    let driver = dew_provider::sim::csi_driver::Driver::new(
        dew_provider::sim::csi_driver::DriverConfig::new(dir.path()),
        Clock::system(),
    );
    driver.apply(
        "ns",
        "app",
        "cce",
        [("objects".to_owned(), object(""))].into(),
    );
    for uid in ["1", "2"] {
        let pod = dew_provider::sim::csi_driver::PodVolume {
            namespace: "ns".into(),
            class: "app".into(),
            uid: uid.into(),
            target_path: dir.path().join(uid),
            ..Default::default()
        };
        let error = driver.publish_as_kubelet(&pod).await.expect_err("panicked");
        assert_eq!(error.code(), Code::Internal, "{error}");
        assert!(
            error.message().contains("please report this bug"),
            "{error}"
        );
        assert!(!error.message().contains("CANARY"), "{error}");
    }
    handle.stop().await;
}
