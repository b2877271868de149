//! What a volume is made of.

use std::io;
use std::path::Path;

/// What makes a folder a volume: the real driver mounts a tmpfs.
pub trait Mounts: Send + Sync {
    /// Called after the folder was made, before anything is written to it.
    ///
    /// # Errors
    /// The system's.
    fn mount(&self, target: &Path) -> io::Result<()>;

    /// Called before the folder is removed, and after a first mount failed.
    ///
    /// # Errors
    /// The system's.
    fn unmount(&self, target: &Path) -> io::Result<()>;
}

/// Folders as they are.
pub(super) struct PlainFolders;

impl Mounts for PlainFolders {
    fn mount(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn unmount(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
