//! Python environments with the SDKs that the tests use, each created once per machine.
#![allow(clippy::expect_used)] // test helpers

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Version of all three packages of Huawei's SDK.
const SDK: &str = "3.1.219";

/// Version of the package that `tests/envelope_sdk/reader.py` needs.
const CRYPTOGRAPHY: &str = "48.0.0";

/// What pip prints if the package index is unreachable, as opposed to other failures.
const UNREACHABLE: [&str; 5] = [
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "ConnectTimeoutError",
    "ProxyError",
    "Network is unreachable",
];

/// Version of the AWS Encryption SDK.
const AWS: &str = "4.0.7";

/// Returns the interpreter of a virtual environment with `huaweicloudsdkcsms`, `huaweicloudsdkkms` and
/// `cryptography`, or `None` if PyPI is unreachable.
pub(crate) fn python() -> Option<PathBuf> {
    let sdk = ["core", "csms", "kms"].map(|part| format!("huaweicloudsdk{part}=={SDK}"));
    let mut packages = sdk.to_vec();
    packages.push(format!("cryptography=={CRYPTOGRAPHY}"));
    let name = format!("python-sdk-{SDK}-{CRYPTOGRAPHY}");
    environment(&name, &packages, "Huawei's SDK")
}

/// Returns the interpreter of a virtual environment with `aws-encryption-sdk`, or `None` if PyPI is unreachable.
pub(crate) fn aws() -> Option<PathBuf> {
    let packages = [format!("aws-encryption-sdk=={AWS}")];
    let name = format!("python-aws-encryption-sdk-{AWS}");
    environment(&name, &packages, "the AWS Encryption SDK")
}

/// Returns the interpreter of a virtual environment with these packages.
///
/// The first test to call this creates it in `DEW_TEST_CACHE`, else `$XDG_CACHE_HOME/dew-provider`, else
/// `~/.cache/dew-provider`; the others wait. Returns `None`, with a message on standard error, only if
/// PyPI is unreachable; any other error fails the test.
#[allow(clippy::print_stderr)] // a skipped test must not look like one that ran
fn environment(name: &str, packages: &[String], shown: &str) -> Option<PathBuf> {
    let cache = cache_dir();
    fs::create_dir_all(&cache).expect("cannot create the test cache directory");
    let lock = File::create(cache.join("python-sdk.lock")).expect("cannot create the lock file");
    lock.lock().expect("cannot take the lock");

    let home = cache.join(name);
    let python = home.join("bin/python");
    let complete = home.join("complete");
    if complete.exists() {
        return Some(python);
    }
    let created = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home));
    assert!(
        created.status.success(),
        "python3 -m venv failed (Debian: apt install python3-venv): {}",
        text(&created)
    );
    let installed = run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--retries", "2", "--timeout", "20"])
        .args(packages));
    if !installed.status.success() {
        let text = text(&installed);
        assert!(
            UNREACHABLE.iter().any(|phrase| text.contains(phrase)),
            "pip install failed: {text}"
        );
        eprintln!(
            "\n*** SKIPPED: PyPI is unreachable, so nothing is checked against {shown} ***\n"
        );
        return None;
    }
    File::create(complete).expect("cannot create the completion marker");
    Some(python)
}

fn cache_dir() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = var("DEW_TEST_CACHE") {
        return dir.into();
    }
    if let Some(dir) = var("XDG_CACHE_HOME") {
        return Path::new(&dir).join("dew-provider");
    }
    Path::new(&var("HOME").expect("none of HOME, XDG_CACHE_HOME and DEW_TEST_CACHE is set"))
        .join(".cache/dew-provider")
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()))
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_official_sdk_is_installed() {
    let Some(python) = python() else { return };
    let imported = run(Command::new(python).args([
        "-c",
        "import cryptography, huaweicloudsdkcsms.v1, huaweicloudsdkkms.v2, huaweicloudsdkcore.signer.signer",
    ]));
    assert!(imported.status.success(), "{}", text(&imported));
}
