//! Runs a server as a process and reads its memory and CPU time from the kernel.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ticks of `/proc/PID/stat` per second, on all current Linux systems.
const TICKS: f64 = 100.0;

/// A server process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) socket: PathBuf,
    /// The time from the start of the process until its socket accepted a connection.
    pub(crate) ready: Duration,
}

impl Process {
    /// Starts the process and waits until its socket accepts connections.
    pub(crate) fn start(command: &mut Command, socket: &Path) -> Self {
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while UnixStream::connect(socket).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{command:?} does not accept connections"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            child,
            socket: socket.to_owned(),
            ready: started.elapsed(),
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    /// CPU time so far, in user and system mode.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name, in parentheses, may contain spaces, so fields are counted after it.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        Duration::from_secs_f64(ticks / TICKS)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
