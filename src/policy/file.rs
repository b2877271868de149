//! The policy file on disk, read again when it changes.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info};

use super::check::Policy;
use super::problems::PolicyProblem;
use super::yaml::MAX_POLICY_BYTES;
use crate::telemetry::metrics::PolicyMetrics;

/// How often the file is read. Its contents are compared and not its time: kubelet replaces a directory above the
/// files of a ConfigMap, and their times say little.
pub const RELOAD_PERIOD: Duration = Duration::from_secs(5);

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("policy {path}: {}", list(problems), path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<PolicyProblem>,
    },
}

fn list(problems: &[PolicyProblem]) -> String {
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    list.join("; ")
}

/// The policy in force. Clones share it.
#[derive(Clone, Debug)]
pub struct PolicyWatch(Arc<watch::Sender<Arc<Policy>>>);

impl PolicyWatch {
    /// Without a file: everything is allowed, for ever.
    pub fn unrestricted() -> Self {
        Self::of(Policy::unrestricted())
    }

    fn of(policy: Policy) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(policy))))
    }

    /// Reads a policy file, and returns a task that reads it again when it changes. A file that becomes wrong,
    /// or cannot be read, leaves the last good policy in force.
    ///
    /// # Errors
    /// If the file cannot be read, or is wrong.
    pub fn open(
        path: &Path,
        metrics: PolicyMetrics,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static + use<>), PolicyError> {
        let text = read(path)?;
        let policy = parse(path, &text)?;
        info!(path = %path.display(), rules = policy.len(), "read the policy");
        let watch = Self::of(policy);
        let hasher = RandomState::new();
        let reload = Reload {
            seen: Ok(hasher.hash_one(&text)),
            hasher,
            path: path.to_owned(),
            metrics,
            watch: watch.clone(),
        };
        Ok((watch, reload.run()))
    }

    /// The policy as it is now.
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow())
    }

    /// Changes when another policy comes into force.
    pub fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.0.subscribe()
    }
}

struct Reload {
    path: PathBuf,
    /// A hash of the contents last read, or why they could not be read: neither is reported twice.
    seen: Result<u64, String>,
    hasher: RandomState,
    metrics: PolicyMetrics,
    watch: PolicyWatch,
}

impl Reload {
    async fn run(mut self) {
        loop {
            sleep(RELOAD_PERIOD).await;
            // Blocking: a local file takes microseconds, and only a changed one is parsed.
            let text = read(&self.path);
            self.apply(text);
        }
    }

    fn apply(&mut self, text: Result<Vec<u8>, PolicyError>) {
        let seen = match &text {
            Ok(text) => Ok(self.hasher.hash_one(text)),
            Err(error) => Err(error.to_string()),
        };
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        match text.and_then(|text| parse(&self.path, &text)) {
            Ok(policy) => {
                info!(path = %self.path.display(), rules = policy.len(), "read the policy again");
                self.metrics.invalid.set(0);
                self.watch.0.send_replace(Arc::new(policy));
            }
            Err(error) => {
                error!(%error, "the last valid policy stays in force");
                self.metrics.invalid.set(1);
            }
        }
    }
}

/// At most one byte more than a policy may have.
fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let mut text = Vec::new();
    let limit = MAX_POLICY_BYTES as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
    read.map(|_| text)
        .map_err(|source| PolicyError::Unreadable {
            path: path.to_owned(),
            source,
        })
}

fn parse(path: &Path, text: &[u8]) -> Result<Policy, PolicyError> {
    let invalid = |problems| PolicyError::Invalid {
        path: path.to_owned(),
        problems,
    };
    let text = std::str::from_utf8(text)
        .map_err(|error| invalid(vec![PolicyProblem::at(0, format!("not UTF-8: {error}"))]))?;
    Policy::parse(text).map_err(invalid)
}
