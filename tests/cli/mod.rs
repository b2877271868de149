//! The command line: help, flags, output, messages and exit codes.

use std::path::Path;

use dew_provider::sim::huawei::{Config, DEMO_ACCESS_KEY, DEMO_SECRET_KEY, Emulator};
use dew_provider::util::clock::Clock;
use tokio::net::TcpListener;

use crate::support::program::{run, text};

const COMMANDS: [&str; 7] = ["serve", "demo", "emulate", "file", "kms", "lint", "secret"];

mod kms;

async fn emulator() -> Emulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Emulator::start(listener, Config::default(), Clock::system()).unwrap()
}

#[tokio::test]
async fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let output = run(&[command, "--help"], &[], "").await;
        assert!(output.status.success());
        let help = text(&output);
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(
            help.contains(&format!("dew-provider {command}")),
            "{command}: {help}"
        );
    }
    let output = run(&["serv"], &[], "").await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("serve"),
        "suggests the closest command"
    );
}

#[tokio::test]
async fn every_flag_of_serve_has_an_environment_variable() {
    let help = text(&run(&["serve", "--help"], &[], "").await);
    let flags = help.matches("\n      --").count() + help.matches("\n  -").count();
    let variables = help.matches("[env: DEW_").count();
    // `--help` itself has none.
    assert_eq!(variables, flags - 1, "{help}");
    let env = [("DEW_ROTATION_POLL_INTERVAL", "2min")];
    let output = run(&["serve"], &env, "").await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("whole minutes from 1m to 1440m"),
        "{}",
        text(&output)
    );
}

#[tokio::test]
async fn invalid_settings_stop_the_start_and_name_the_fix() {
    let off = ["serve", "--service-account-allow-list", "off"];
    for (args, expected) in [
        (vec!["--rotation-poll-interval", "1h"], "with the unit m"),
        (vec!["--provider-name", "a/b"], "--provider-name"),
        (vec!["--region", "nowhere!"], "--region"),
        (
            vec!["--csms-endpoint", "ftp://x"],
            "the scheme must be http or https",
        ),
        (vec!["--csms-qps", "0"], "--csms-qps"),
        (vec!["--stale-limit", "1d"], "such as 24h or 30m"),
        (vec!["--stale-limit", "169h"], "at most 168h"),
        (vec!["--log-level", "loud"], "--log-level"),
        (
            vec!["--kubelet-root", "var/lib/kubelet"],
            "--kubelet-root \"var/lib/kubelet\": must be an absolute path",
        ),
        (
            vec!["--ca-bundle", "/nonexistent/ca.pem"],
            "/nonexistent/ca.pem",
        ),
        (
            vec!["--kubeconfig", "/nonexistent/kubeconfig"],
            "/nonexistent/kubeconfig",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut all = off.to_vec();
        all.extend(["--socket-dir", folder.path().to_str().unwrap()]);
        all.extend(["--admin-address", "127.0.0.1:0"]);
        all.extend(&args);
        let output = run(&all, &[], "").await;
        assert!(!output.status.success(), "{args:?}");
        assert!(
            text(&output).contains(expected),
            "{args:?}: {}",
            text(&output)
        );
    }
    // The allow list is read from Kubernetes.
    let output = run(&["serve"], &[], "").await;
    assert_eq!(output.status.code(), Some(1));
    for expected in [
        "--service-account-allow-list required requires Kubernetes",
        "--kubeconfig",
        "off",
    ] {
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}

#[tokio::test]
async fn secrets_can_be_created_updated_read_and_listed() {
    let emulator = emulator().await;
    let url = emulator.url();
    let env = [
        ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
        ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
        ("DEW_REGION", "cn-north-4"),
        ("DEW_CSMS_ENDPOINT", &url),
        ("DEW_IAM_ENDPOINT", &url),
    ];
    let dew = |args: &'static [&'static str], input: &'static str| async move {
        let mut all = vec!["secret"];
        all.extend(args);
        run(&all, &env, input).await
    };
    let created = dew(&["create", "db", "--description", "a login"], "one").await;
    assert!(created.status.success(), "{}", text(&created));
    let put = dew(&["put", "db", "--format", "json"], "two").await;
    let put: serde_json::Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!(put[0]["id"], "v2");
    assert_eq!(dew(&["get", "db"], "").await.stdout, b"two");
    assert_eq!(
        dew(&["get", "db", "--version", "v1"], "").await.stdout,
        b"one"
    );
    assert_eq!(
        dew(&["get", "db", "--stage", "SYSPREVIOUS"], "")
            .await
            .stdout,
        b"one"
    );
    let json = dew(&["get", "db", "--format", "json"], "").await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["secret_string"], &json["version_metadata"]["id"]),
        (&"two".into(), &"v2".into())
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keystore");
    std::fs::write(&file, [0, 255, 10]).unwrap();
    let binary = run(
        &[
            "secret",
            "create",
            "bin",
            "--binary",
            "--file",
            file.to_str().unwrap(),
        ],
        &env,
        "",
    )
    .await;
    assert!(binary.status.success(), "{}", text(&binary));
    assert_eq!(dew(&["get", "bin"], "").await.stdout, [0, 255, 10]);
    let list = text(&dew(&["list"], "").await);
    for word in ["NAME", "db", "bin", "ENABLED", "a login"] {
        assert!(list.contains(word), "{list}");
    }
    let versions = text(&dew(&["versions", "db"], "").await);
    assert!(
        versions.contains("v2") && versions.contains("SYSCURRENT"),
        "{versions}"
    );
    // Failures name the cause and exit with 1.
    for (args, input, expected) in [
        (&["get", "gone"][..], "", "CSMS.0106"),
        (&["create", "db"], "x", "CSMS.0101"),
        (&["create", "not a name"], "x", "name"),
        (&["create", "empty"], "", "the value is empty"),
        (
            &["put", "db", "--file", "/nonexistent"],
            "",
            "cannot read /nonexistent",
        ),
    ] {
        let output = dew(args, input).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output).contains(expected),
            "{args:?}: {}",
            text(&output)
        );
    }
    let output = dew(&["put", "db", "the-value"], "").await;
    assert_eq!(
        output.status.code(),
        Some(2),
        "a value is never an argument"
    );
}

#[tokio::test]
async fn lint_reports_file_line_and_reason_and_fails_on_errors() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let head = "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {name: app}\nspec:\n  provider: cce\n  parameters:\n    objects: |\n";
    let good = write(
        "good.yaml",
        &format!("{head}      - {{objectName: a, objectType: csms, objectVersion: v1}}\n"),
    );
    let bad = write(
        "bad.yaml",
        &format!(
            "{head}      - objectName: a\n        objectType: csms\n        objectVersion: newest\n        objectAlais: b\n"
        ),
    );
    let output = run(&["lint", &good], &[], "").await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = run(&["lint", &good, &bad], &[], "").await;
    assert_eq!(output.status.code(), Some(1));
    let findings = text(&output);
    for line in [
        "bad.yaml:10: error: SecretProviderClass app, objects, object \"a\", objectVersion: \"newest\" is neither latest nor a version such as v1",
        "bad.yaml:11: error: SecretProviderClass app, objects, object \"a\", objectAlais: unknown field; did you mean objectAlias?",
        "checked 2 SecretProviderClasses",
    ] {
        assert!(findings.contains(line), "{findings}");
    }
    let output = run(&["lint", "/nonexistent.yaml"], &[], "").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/nonexistent.yaml cannot be read"));
    let from_stdin = run(&["lint", "-"], &[], &std::fs::read_to_string(&bad).unwrap()).await;
    assert!(
        text(&from_stdin).contains("-:10: error"),
        "{}",
        text(&from_stdin)
    );
}

#[tokio::test]
async fn the_examples_pass_lint_and_the_demo_rotates_a_secret() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/examples");
    let mut args = vec!["lint".to_owned()];
    for entry in std::fs::read_dir(examples).unwrap() {
        args.push(entry.unwrap().path().to_str().unwrap().to_owned());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = run(&args, &[], "").await;
    assert!(
        text(&output).contains(": 0 errors, 0 warnings"),
        "{}",
        text(&output)
    );
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["demo", "--dir", folder.path().to_str().unwrap()], &[], "").await;
    assert!(output.status.success(), "{}", text(&output));
    let shown = text(&output);
    for expected in [
        "first-pass",
        "second-pass",
        "[429, 429, 502, 200]",
        "CSMS.0302",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let password = folder.path().join("pods/shop-2/secrets/mount/password");
    assert_eq!(std::fs::read_to_string(password).unwrap(), "second-pass");
}
