//! Input that means harm, or is only very wrong: a clear error, and the process lives.

use std::fmt::Write as _;

use dew_provider::proto::MountRequest;
use dew_provider::socket;
use serde_json::json;
use tonic::{Code, Status};

use super::support::still::hurry;
use super::support::world::World;

mod properties;

/// Sends what no driver would.
async fn mount(world: &World, attributes: String, secrets: &str) -> Result<(), Status> {
    let mut client = socket::client(&world.provider.sockets[0]);
    let request = MountRequest {
        attributes,
        secrets: secrets.into(),
        target_path: "/x".into(),
        permission: "420".into(),
        ..MountRequest::default()
    };
    hurry(client.mount(request)).await.map(drop)
}

/// Mounts a class with these objects, which must be refused as invalid.
async fn refused(world: &World, objects: &str) -> String {
    world.apply_for("app", objects, &["a"]).await;
    let attributes = json!({
        "objects": objects,
        "secretProviderClass": "app",
        "csi.storage.k8s.io/pod.name": "p",
        "csi.storage.k8s.io/pod.namespace": "default",
        "csi.storage.k8s.io/serviceAccount.name": "app",
    });
    let error = mount(world, attributes.to_string(), "null")
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
async fn file_names_that_leave_the_volume_or_confuse_it() {
    let world = World::new().await;
    let long = format!("objectAlias: {}", "x".repeat(300));
    for (fields, text) in [
        ("objectAlias: ../etc/passwd", "component \"..\""),
        ("objectAlias: a/../../b", "component \"..\""),
        ("objectAlias: /etc/passwd", "relative"),
        ("objectAlias: \"a\\0b\"", "control characters"),
        ("objectAlias: \"a\\nb\"", "control characters"),
        ("objectAlias: a//b", "must not contain //"),
        ("objectAlias: a/", "end in /"),
        ("objectAlias: ..data", "begin with .."),
        ("objectAlias: ./a", "component \".\""),
        ("objectAlias: \"\"", "must not be empty"),
        ("objectAlias: 'a\\b'", "backslash"),
        (&long, "longer than 255"),
        ("filePermission: \"0000\"", "lets nobody read"),
        ("filePermission: \"4755\"", "special bits"),
        ("filePermission: \"rw\"", "not a file mode"),
        ("objectNam: x", "did you mean objectName?"),
    ] {
        let message = refused(&world, &object(fields)).await;
        assert!(message.contains(text), "{fields}: {message}");
        assert!(
            message.contains("SecretProviderClass \"app\": objects line 1"),
            "{message}"
        );
    }
    assert_eq!(world.calls("ShowSecretVersion").await, 0);
}

#[tokio::test]
async fn yaml_that_means_harm() {
    let world = World::new().await;
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for level in b'b'..b'k' {
        let (this, last) = (level as char, (level - 1) as char);
        let refs = vec![format!("*{last}"); 9].join(",");
        writeln!(bomb, "{this}: &{this} [{refs}]").unwrap();
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_block: String = (0..500).map(|i| format!("{}- \n", " ".repeat(i))).collect();
    let huge = object(&format!("objectAlias: {}", "x".repeat(300 * 1024)));
    let many: String = (0..201)
        .map(|i| format!("- {{objectName: a{i}, objectType: csms, objectVersion: v1}}\n"))
        .collect();
    for (yaml, text) in [
        (bomb.as_str(), ""),
        (&deep, ""),
        (&deep_block, ""),
        (&huge, "are more than 262144"),
        (&many, "201 objects are more than 200"),
        ("- {objectName: a, objectName: b}", "objectName"),
        ("objectName: a", "list"),
        ("- a\n- b", ""),
        ("", "empty"),
        (
            "- {objectName: [a], objectType: csms}",
            "expected string scalar at line 1, column 16",
        ),
        ("- !!python/object:os.system {objectName: a}", ""),
        ("\u{0}", ""),
        ("- &x {objectName: *x}", ""),
        ("{{{{", ""),
    ] {
        let message = refused(&world, yaml).await;
        assert!(message.contains(text), "{:.80}: {message}", yaml);
    }
}

#[tokio::test]
async fn expressions_that_mean_harm() {
    let world = World::new().await;
    world.create("a", r#"{"k":"v"}"#).await;
    let expression = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        object(&format!("jmesPath: [{{path: {quoted}, objectAlias: x}}]"))
    };
    let message = refused(&world, &expression(&"a".repeat(513))).await;
    assert!(message.contains("513 bytes, more than 512"), "{message}");
    let message = refused(&world, &expression("a[")).await;
    assert!(message.contains("not a JMESPath expression"), "{message}");
    // Doubled every few bytes, and again: no memory is enough for the result.
    for step in ["[@,@]", "{a:@,b:@}", "map(&[@,@],[@])"] {
        let text = vec![step; 512 / (step.len() + 1)].join("|");
        let message = refused(&world, &expression(&text)).await;
        assert!(
            message.contains("could multiply the secret by more than 64"),
            "{message}"
        );
    }
    // Many files of one secret: refused before they are made.
    let items = |count: usize| {
        let items: Vec<_> = (0..count)
            .map(|i| format!("{{path: '@', objectAlias: f{i}}}"))
            .collect();
        object(&format!("jmesPath: [{}]", items.join(", ")))
    };
    let message = refused(&world, &items(201)).await;
    assert!(message.contains("201 items are more than 200"), "{message}");
    // As deep as 512 bytes go, in every way to nest: an error of whichever step, never the end.
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
        world.apply_for("deep", &expression(&text), &["a"]).await;
        let result = world.publish(&world.pod("deep", "1")).await;
        // Nested braces are an expression like any other.
        if let Err(error) = result {
            let taken = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::FailedPrecondition,
            ];
            assert!(taken.contains(&error.code()), "{open}: {error}");
        }
    }
    world.apply_for("app", &object(""), &["a"]).await;
    world.publish(&world.pod("app", "2")).await.unwrap();
}

#[tokio::test]
async fn requests_that_no_driver_sends() {
    let world = World::new().await;
    let big = json!({ "x": "y".repeat(1024 * 1024) }).to_string();
    let nested = format!("{{\"x\": {}", "[".repeat(100_000));
    for (attributes, secrets, text) in [
        (big.as_str(), "null", "are more than 1048576"),
        (&nested, "null", "attributes are not a JSON object"),
        ("", "null", "attributes are not a JSON object"),
        ("null", "null", "attributes are not a JSON object"),
        ("[1]", "null", "attributes are not a JSON object"),
        (r#"{"objects": 1}"#, "null", "not a string"),
        (r#"{"objects": "x", "objects": "y"}"#, "null", "twice"),
        ("{}", "[]", "secrets are not a JSON object"),
        ("{}", "{\"a\":", "secrets are not a JSON object"),
        ("{}", &"x".repeat(70_000), "are more than 65536"),
        ("{}", "null", "has no parameter objects"),
    ] {
        let error = mount(&world, attributes.to_owned(), secrets)
            .await
            .expect_err(text);
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(text), "{text}: {error}");
    }
    // A pod name that tries to forge a line of the log is quoted there or refused; a mount without
    // a pod, as the sync controller could send, has no ServiceAccount to allow anything.
    let nobody = json!({"objects": object(""), "secretProviderClass": "app"}).to_string();
    let error = mount(&world, nobody, "{}").await.expect_err("nobody");
    assert!(
        [Code::InvalidArgument, Code::NotFound].contains(&error.code()),
        "{error}"
    );
}

#[tokio::test]
async fn results_over_the_drivers_limit_are_told_before_it_refuses_them() {
    let world = World::new().await;
    let names: Vec<String> = (0..200).map(|i| format!("big{i}")).collect();
    let mut objects = String::new();
    let value = "x".repeat(32_000);
    for name in &names {
        world.create(name, value.as_str()).await;
        writeln!(
            objects,
            "- {{objectName: {name}, objectType: csms, objectVersion: latest}}"
        )
        .unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.apply_for("big", &objects, &names).await;
    let error = world
        .publish(&world.pod("big", "1"))
        .await
        .expect_err("6 MiB");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    for text in [
        "driver takes at most 4128768",
        "several SecretProviderClasses",
    ] {
        assert!(error.message().contains(text), "{error}");
    }
    // What just fits is taken, also by the driver.
    let fits: String = objects
        .lines()
        .take(128)
        .flat_map(|line| [line, "\n"])
        .collect();
    world.apply_for("fits", &fits, &names).await;
    world.publish(&world.pod("fits", "2")).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_one_requests_failure() {
    use dew_provider::clock::{Clock, Jitter};
    use dew_provider::cloud::{Config, Env};
    use dew_provider::provider::authorize::AllowListMode;
    use dew_provider::serve::{self, Outside};
    // A clock that fails is asked in the middle of a mount, when the call is signed.
    let folder = tempfile::tempdir().unwrap();
    let config = serve::Config {
        socket_dir: folder.path().into(),
        provider_names: vec!["cce".into()],
        region: Some("cn-north-4".parse().unwrap()),
        project: Some("p".into()),
        interval: std::time::Duration::from_secs(120),
        stale_limit: std::time::Duration::from_secs(24 * 3600),
        store_dir: None,
        allow_list: AllowListMode::Off,
        cloud: Config {
            csms_endpoint: Some("http://127.0.0.1:9".into()),
            ..Config::default()
        },
        rotation: None,
        admin_address: None,
    };
    let env = [("HUAWEICLOUD_SDK_AK", "a"), ("HUAWEICLOUD_SDK_SK", "b")];
    let outside = Outside {
        env: Env::from_pairs(env),
        clock: Clock::from_fn(|| panic!("CANARY")),
        jitter: Jitter::seeded(1),
        dial: dew_provider::cloud::tcp(),
        kube: None,
    };
    let running = serve::start(config, outside).await.unwrap();
    let driver = dew_provider::driver::Driver::new(
        dew_provider::driver::DriverConfig::new(folder.path()),
        Clock::system(),
    );
    driver.apply(
        "ns",
        "app",
        "cce",
        [("objects".to_owned(), object(""))].into(),
    );
    for uid in ["1", "2"] {
        let pod = dew_provider::driver::PodVolume {
            namespace: "ns".into(),
            class: "app".into(),
            uid: uid.into(),
            target_path: folder.path().join(uid),
            ..Default::default()
        };
        let error = driver.publish_as_kubelet(&pod).await.expect_err("panicked");
        assert_eq!(error.code(), Code::Internal, "{error}");
        assert!(
            error.message().contains("a bug, please report it"),
            "{error}"
        );
        assert!(!error.message().contains("CANARY"), "{error}");
    }
    running.stop().await;
}
