//! Runs the `dew-provider` binary as a process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// The binary with an empty environment, so that the machine's does not influence a test.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dew-provider"));
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs the binary until it exits.
pub(crate) async fn run(args: &[&str], env: &[(&str, &str)], input: &str) -> Output {
    use tokio::io::AsyncWriteExt;
    let mut command = command(args);
    command.envs(env.iter().copied()).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A process that does not read its input may have exited already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

/// What the process printed to standard output and standard error.
pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// `serve` without a cluster, with its socket in a directory of the test.
pub(crate) struct Serve {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Serve {
    /// Starts `serve` and waits until its socket accepts connections.
    pub(crate) async fn start(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let socket = folder.join("cce.sock");
        let mut all = vec!["serve", "--service-account-allow-list", "off"];
        all.extend([
            "--admin-address",
            "127.0.0.1:0",
            "--socket-dir",
            folder.to_str().unwrap(),
        ]);
        all.extend(args);
        let mut command = command(&all);
        command.envs(env.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "serve exited: {}",
                log(child).await
            );
            tokio::task::yield_now().await;
        }
        Self { child, socket }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the process exits; returns its status and its log.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().await.unwrap();
        (status, log(self.child).await)
    }
}

async fn log(mut child: Child) -> String {
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    text
}
