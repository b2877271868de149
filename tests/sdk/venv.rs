//! A Python with Huawei's official SDK, made once per machine.
#![allow(clippy::expect_used)] // helpers of tests too

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Version of all three packages of the SDK.
const SDK: &str = "3.1.219";

/// What pip prints where the package index cannot be reached, as opposed to any other failure.
const UNREACHABLE: [&str; 5] = [
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "ConnectTimeoutError",
    "ProxyError",
    "Network is unreachable",
];

/// The interpreter of a virtual environment that has `huaweicloudsdkcsms` and `huaweicloudsdkkms`.
///
/// Made in `DEW_TEST_CACHE`, else `$XDG_CACHE_HOME/dew-provider`, else `~/.cache/dew-provider`, by
/// whichever test comes first; the others wait. `None` only where PyPI cannot be reached, which is
/// said on standard error; everything else that fails fails the test.
#[allow(clippy::print_stderr)] // a skipped test must not look like one that ran
pub(crate) fn python() -> Option<PathBuf> {
    let cache = cache_dir();
    fs::create_dir_all(&cache).expect("the test cache directory can be made");
    let lock = File::create(cache.join("python-sdk.lock")).expect("the lock file can be made");
    lock.lock().expect("the lock can be taken");

    let home = cache.join(format!("python-sdk-{SDK}"));
    let python = home.join("bin/python");
    let complete = home.join("complete");
    if complete.exists() {
        return Some(python);
    }
    let made = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home));
    assert!(
        made.status.success(),
        "python3 -m venv failed (Debian: apt install python3-venv): {}",
        text(&made)
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
        .args(["core", "csms", "kms"].map(|part| format!("huaweicloudsdk{part}=={SDK}"))));
    if !installed.status.success() {
        let text = text(&installed);
        assert!(
            UNREACHABLE.iter().any(|sign| text.contains(sign)),
            "pip install failed: {text}"
        );
        eprintln!(
            "\n*** SKIPPED: PyPI cannot be reached, so nothing is checked against Huawei's SDK ***\n"
        );
        return None;
    }
    File::create(complete).expect("the mark can be written");
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
    Path::new(&var("HOME").expect("HOME, XDG_CACHE_HOME or DEW_TEST_CACHE is set"))
        .join(".cache/dew-provider")
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program()))
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
        "import huaweicloudsdkcsms.v1, huaweicloudsdkkms.v2, huaweicloudsdkcore.signer.signer",
    ]));
    assert!(imported.status.success(), "{}", text(&imported));
}
