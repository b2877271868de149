//! The snapshot: cached versions in a file, which preserves them across restarts of the provider.

mod file;
mod record;
mod writer;

pub use file::{SnapshotDirError, SnapshotFile};
pub(super) use record::SavedVersion;
pub(super) use writer::SnapshotWriter;
