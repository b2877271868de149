//! How a folder becomes a volume.

use std::io;
use std::path::Path;

/// Mounts and unmounts volumes. The real driver mounts a tmpfs.
pub trait Mounts: Send + Sync {
    /// Mounts the volume. Called after its folder is created and before files are written to it.
    ///
    /// # Errors
    /// The error of the operating system.
    fn mount(&self, target: &Path) -> io::Result<()>;

    /// Unmounts the volume. Called before its folder is removed, and after the first mount failed.
    ///
    /// # Errors
    /// The error of the operating system.
    fn unmount(&self, target: &Path) -> io::Result<()>;

    /// Whether the volume is mounted, although this driver may not know it: after a restart the real driver
    /// finds its volumes in the mount table.
    fn is_mounted(&self, _target: &Path) -> bool {
        false
    }
}

/// Leaves folders as they are.
pub(super) struct PlainFolders;

impl Mounts for PlainFolders {
    fn mount(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn unmount(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
