//! The program as a process: errors speak of flags, closed pipes and empty variables do no harm.

use std::process::Stdio;

use dew_provider::sim::huawei::{
    Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator, Rights,
};
use dew_provider::util::clock::Clock;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::LIBRARY;
use crate::support::program::{command, run, text};

async fn emulator(config: Config) -> Emulator {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Emulator::start(listener, config, Clock::system()).unwrap()
}

fn keys(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
        ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
        ("DEW_CSMS_ENDPOINT", url),
        ("DEW_IAM_ENDPOINT", url),
        ("DEW_METADATA_ENDPOINT", url),
    ]
}

#[tokio::test]
async fn wrong_settings_name_the_flag_and_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let socket_dir = folder.path().to_str().unwrap();
    let not_pem = write(
        "not.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    let kubeconfig = write("kubeconfig", "clusters: [5]\n");
    let tabs = write("tabs", "clusters:\n\t- x\n");
    for (args, parts) in [
        (vec!["--csms-qps", "0"], &["--csms-qps", "from 1 to"][..]),
        (vec!["--csms-qps", "x"], &["--csms-qps", "whole number"]),
        (
            vec!["--rotation-qps", "1.5"],
            &["--rotation-qps", "whole number"],
        ),
        (
            vec!["--rotation-qps", "99999999999"],
            &["--rotation-qps", "whole number"],
        ),
        (
            vec!["--admin-address", "8989"],
            &["--admin-address", "IP address and a port"],
        ),
        (
            vec!["--admin-address", "localhost:1"],
            &["--admin-address", "IP address and a port"],
        ),
        (
            vec!["--region", "Nowhere"],
            &["--region", "not a region ID"],
        ),
        (
            vec!["--log-level", "info,=x=y"],
            &["--log-level", "such as info"],
        ),
        (
            vec!["--stale-limit", "a"],
            &["--stale-limit", "such as 24h"],
        ),
        (
            vec!["--ca-bundle", "/nonexistent"],
            &["--ca-bundle /nonexistent", "No such file"],
        ),
        (
            vec!["--ca-bundle", socket_dir],
            &["--ca-bundle", "directory"],
        ),
        (vec!["--ca-bundle", &not_pem], &["--ca-bundle", "not PEM"]),
        (
            vec!["--kubeconfig", "/nonexistent"],
            &["kubeconfig /nonexistent", "No such file"],
        ),
        (
            vec!["--kubeconfig", &kubeconfig],
            &["kubeconfig", "not a kubeconfig file"],
        ),
        (
            vec!["--kubeconfig", &tabs],
            &["kubeconfig", "not a kubeconfig file"],
        ),
        (
            vec!["--csms-endpoint", "kms.example"],
            &["--csms-endpoint", "no scheme"],
        ),
        (
            vec!["--iam-endpoint", "https://a:x"],
            &["--iam-endpoint", "the port"],
        ),
    ] {
        let mut all = vec!["serve", "--service-account-allow-list", "off"];
        all.extend(["--socket-dir", socket_dir]);
        if !args.contains(&"--admin-address") {
            all.extend(["--admin-address", "127.0.0.1:0"]);
        }
        all.extend(&args);
        let output = run(&all, &[], "").await;
        let shown = text(&output);
        assert!(!output.status.success(), "{args:?}: {shown}");
        for phrase in LIBRARY {
            assert!(!shown.contains(phrase), "{phrase:?} in {shown}");
        }
        for part in parts {
            assert!(shown.contains(part), "{args:?}: {part:?} not in {shown}");
        }
    }
}

#[tokio::test]
async fn a_credentials_file_names_path_line_and_key_but_no_value() {
    let emulator = emulator(Config::default()).await;
    let url = emulator.url();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    for (contents, part) in [
        (Some("[basic\nak=A\nsk=hunter2\n"), "not INI (line 1)"),
        (Some("[basic]\nak=A\nhunter2\n"), "not INI (line 3)"),
        (Some("[global]\nak=A\nsk=hunter2\n"), "no section [basic]"),
        (Some("[basic]\nsk=hunter2\n"), "has no ak"),
        (Some("[basic]\nak=A\nsk=\n"), "has no sk"),
        (Some("\u{1b}]0;x\u{7}"), ""),
        (None, "does not exist"),
    ] {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let mut env = keys(&url).split_off(2);
        env.push(("HUAWEICLOUD_SDK_CREDENTIALS_FILE", path.to_str().unwrap()));
        let output = run(&["secret", "list", "--region", DEMO_REGION], &env, "").await;
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(1));
        for phrase in LIBRARY {
            assert!(!shown.contains(phrase), "{phrase:?} in {shown}");
        }
        for part in [path.to_str().unwrap(), part] {
            assert!(
                shown.contains(part),
                "{contents:?}: {part:?} not in {shown}"
            );
        }
        assert!(
            !shown.contains("hunter2") && !shown.contains('\u{1b}'),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn advice_of_the_command_line_speaks_of_flags() {
    let emulator = emulator(Config::default()).await;
    let url = emulator.url();
    let env = keys(&url);
    let output = run(&["secret", "list"], &env, "").await;
    let shown = text(&output);
    assert!(shown.contains("--region or DEW_REGION"), "{shown}");
    // IAM knows no project of this region.
    let output = run(&["secret", "list", "--region", "cn-south-1"], &env, "").await;
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown.contains("--project-id or DEW_PROJECT_ID"), "{shown}");
    for phrase in ["SecretProviderClass", "projectId", "the parameter"] {
        assert!(!shown.contains(phrase), "{shown}");
    }
}

#[tokio::test]
async fn a_denied_command_names_the_action_of_its_call() {
    let account = Account {
        access_key: DEMO_ACCESS_KEY.to_owned(),
        secret_key: DEMO_SECRET_KEY.to_owned().into(),
        name: "demo".to_owned(),
        projects: [(DEMO_REGION.to_owned(), DEMO_PROJECT.to_owned())].into(),
        rights: Rights::default(),
    };
    let emulator = emulator(Config {
        accounts: vec![account],
        ..Config::default()
    })
    .await;
    let url = emulator.url();
    let mut env = keys(&url);
    env.push(("DEW_REGION", DEMO_REGION));
    let made = run(&["secret", "create", "db"], &env, "x").await;
    assert!(made.status.success(), "{}", text(&made));
    emulator
        .add_faults(r#"[{"match": {}, "times": 1000, "fault": {"status": 403, "code": "CSMS.0302", "message": "No permission"}}]"#)
        .unwrap();
    env.push(("DEW_PROJECT_ID", DEMO_PROJECT));
    for (args, action) in [
        (&["list"][..], "csms:secret:list"),
        (&["create", "new"], "csms:secret:create"),
        (&["put", "db"], "csms:secretVersion:create"),
        (&["get", "db"], "csms:secretVersion:get"),
        (
            &["get", "db", "--stage", "SYSCURRENT"],
            "csms:secretStage:get",
        ),
        (&["versions", "db"], "csms:secretVersion:list"),
    ] {
        let mut all = vec!["secret"];
        all.extend(args);
        let output = run(&all, &env, "x").await;
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(
            shown.contains(&format!("grant the identity {action} in")),
            "{args:?}: {shown}"
        );
        assert_eq!(shown.matches("csms:").count(), 1, "{shown}");
    }
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let emulator = emulator(Config::default()).await;
    let url = emulator.url();
    let mut env = keys(&url);
    let empty = [
        "DEW_PROJECT_ID",
        "DEW_CA_BUNDLE",
        "DEW_CSMS_QPS",
        "DEW_CSMS_BURST",
        "HUAWEICLOUD_SDK_SECURITY_TOKEN",
        "HUAWEICLOUD_SDK_PROJECT_ID",
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE",
        "HUAWEICLOUD_SDK_IAM_ENDPOINT",
        "HTTPS_PROXY",
        "NO_PROXY",
    ];
    env.extend(empty.map(|name| (name, "")));
    let output = run(&["secret", "list", "--region", DEMO_REGION], &env, "").await;
    assert!(output.status.success(), "{}", text(&output));
    env.push(("DEW_REGION", ""));
    let shown = text(&run(&["secret", "list"], &env, "").await);
    assert!(shown.contains("no region: set --region"), "{shown}");

    // Every variable in the help of every command.
    for name in ["serve", "lint", "demo"] {
        let help = text(&run(&[name, "--help"], &[], "").await);
        let variables: Vec<&str> = help
            .split("[env: ")
            .skip(1)
            .filter_map(|rest| rest.split(['=', ']']).next())
            .collect();
        assert!(!variables.is_empty());
        let env: Vec<(&str, &str)> = variables.iter().map(|name| (*name, "")).collect();
        // Fails after the command line is parsed, or does nothing.
        let args: &[&str] = match name {
            "serve" => &["serve", "--socket-dir", "/nonexistent"],
            "lint" => &["lint", "/nonexistent"],
            _ => &["demo", "--dir", "/proc/nonexistent"],
        };
        let output = run(args, &env, "").await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_program_quietly() {
    let emulator = emulator(Config::default()).await;
    let url = emulator.url();
    let mut env = keys(&url);
    env.push(("DEW_REGION", DEMO_REGION));
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("a.yaml");
    std::fs::write(&manifest, "kind: [\n").unwrap();
    let directory = folder.path().join("demo");
    for args in [
        &["demo", "--dir", directory.to_str().unwrap()][..],
        &["secret", "list"],
        &["secret", "list", "--format", "json"],
        &["lint", manifest.to_str().unwrap()],
        &["--help"],
        &["--version"],
        &["help", "serve"],
    ] {
        let mut child = command(args);
        let mut child = child
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads.
        drop(child.stdout.take());
        let mut errors = String::new();
        let mut stderr = child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).await.unwrap();
        let status = child.wait().await.unwrap();
        assert_eq!(errors, "", "{args:?}");
        assert!(status.success(), "{args:?}: {status}");
    }
    // Nor does anybody read the errors.
    let mut child = command(&["secret", "list", "--region", "x!"]);
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(2));
    let mut child = command(&["lint", "/nonexistent"]);
    let mut child = child
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn lint_reads_directories_and_reports_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    let bad = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, annotations: {cce.io/dew-resource: db}}\n";
    for name in [
        "a/1.yaml",
        "a/b/2.yml",
        "a/b/3.json",
        "a/notes.txt",
        "a/.hidden.txt",
    ] {
        std::fs::write(root.join(name), bad).unwrap();
    }
    std::fs::write(root.join("binary.yaml"), [0xff, 0xfe, 0]).unwrap();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let all = [
        path("missing.yaml"),
        path("binary.yaml"),
        path("a"),
        path("empty"),
    ];
    let mut args = vec!["lint", "-"];
    args.extend(all.iter().map(String::as_str));
    let output = run(&args, &[], bad).await;
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in [
        "-:3: error: ServiceAccount x",
        "missing.yaml cannot be read: No such file or directory",
        "binary.yaml cannot be read: it is not UTF-8 text",
        "a/1.yaml:3: error",
        "a/b/2.yml:3: error",
        "a/b/3.json:3: error",
        "empty cannot be read: it has no files",
        "and 4 ServiceAccounts",
    ] {
        assert!(shown.contains(part), "{part:?} not in {shown}");
    }
    for phrase in LIBRARY.into_iter().chain(["notes.txt"]) {
        assert!(!shown.contains(phrase), "{phrase:?} in {shown}");
    }
}

/// A repository that lint checks may contain links and pipes.
#[tokio::test]
async fn lint_ends_whatever_a_directory_contains() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let manifests = root.join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    std::os::unix::fs::symlink("/dev/zero", manifests.join("device.yaml")).unwrap();
    std::os::unix::fs::symlink("missing", manifests.join("dangling.yaml")).unwrap();
    let pipe = manifests.join("pipe.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let manifest = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, annotations: {cce.io/dew-resource: '[]'}}\n";
    std::fs::write(root.join("good.yaml"), manifest).unwrap();
    std::os::unix::fs::symlink(root.join("good.yaml"), manifests.join("link.yaml")).unwrap();
    let output = run(&["lint", manifests.to_str().unwrap()], &[], "").await;
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in [
        "device.yaml cannot be read: it is not a regular file",
        "pipe.yaml cannot be read: it is not a regular file",
        "dangling.yaml cannot be read: No such file or directory",
        "and 1 ServiceAccounts",
    ] {
        assert!(shown.contains(part), "{part:?} not in {shown}");
    }
    // A file that the user names may be a pipe, and is read to a limit.
    for args in [["lint", "/dev/zero"], ["lint", "--policy=/dev/zero"]] {
        let output = run(&args, &[], "").await;
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(
            shown.contains("/dev/zero cannot be read: it is larger than 256 MiB"),
            "{shown}"
        );
    }
}
