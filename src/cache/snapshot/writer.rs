//! Decides when the snapshot is written.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::file::{LoadedSnapshot, SnapshotFile};
use super::record::SavedVersion;

/// Minimum time between two writes.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// How old the confirmation times in the file may become.
const CONFIRMED_EVERY: Duration = Duration::from_secs(60);

/// The snapshot file, and why it has to be written again.
pub(in crate::cache) struct SnapshotWriter {
    file: SnapshotFile,
    /// Notified when the file has to be written.
    changed: Notify,
    /// Whether a saved version was confirmed since the last write.
    confirmed: AtomicBool,
    /// Whether the file may contain a version that was rejected since the last write.
    rejected: AtomicBool,
    /// Whether the last write failed.
    failing: AtomicBool,
}

impl SnapshotWriter {
    /// A writer for `file`, and the versions in it that were confirmed within `limit`.
    pub(in crate::cache) fn load(file: SnapshotFile, limit: Duration) -> (Self, Vec<SavedVersion>) {
        let LoadedSnapshot { versions, outdated } = file.load(limit);
        let writer = Self {
            file,
            changed: Notify::new(),
            confirmed: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        };
        if outdated {
            writer.changed.notify_one();
        }
        (writer, versions)
    }

    /// Notes that a version changed: the file is written soon.
    pub(in crate::cache) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// Notes that a version was confirmed: the file is written within a minute.
    pub(in crate::cache) fn note_confirmation(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }

    /// Notes that a version in the file was rejected: it must not stay there.
    pub(in crate::cache) fn note_rejection(&self) {
        self.rejected.store(true, Ordering::Relaxed);
        self.note_change();
    }

    /// Waits until the file should be written.
    pub(in crate::cache) async fn due(&self) {
        loop {
            tokio::select! {
                () = self.changed.notified() => return,
                () = sleep(CONFIRMED_EVERY) => if self.confirmed.load(Ordering::Relaxed) {
                    return;
                },
            }
        }
    }

    /// Waits for the minimum time between two writes.
    pub(in crate::cache) async fn pause(&self) {
        sleep(WRITE_PAUSE).await;
    }

    /// Writes the file; with `close`, for the last time. Blocks.
    pub(in crate::cache) fn write(
        &self,
        versions: impl FnOnce() -> Vec<SavedVersion>,
        close: bool,
    ) -> io::Result<()> {
        self.confirmed.store(false, Ordering::Relaxed);
        let rejected = self.rejected.swap(false, Ordering::Relaxed);
        let written = self.file.write(versions);
        if written.is_err() {
            // An old file is better than none, unless the cloud rejected something in it.
            if rejected && self.file.remove().is_err() {
                self.rejected.store(true, Ordering::Relaxed);
            }
            self.note_confirmation();
        }
        if close {
            self.file.close();
        }
        written
    }

    /// Logs the first failure of a series, and its end.
    pub(in crate::cache) fn log(&self, written: &io::Result<()>) {
        let path = self.path().display();
        match written {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                info!(%path, "the snapshot is written again");
            }
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                warn!(%path, %error, "could not write the snapshot; retrying every minute");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}
