//! Where output goes: into its place only when it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::{NamedTempFile, TempPath};

/// The start of the names of temporary files.
const PREFIX: &str = ".dew-provider-";

/// A file that appears in its place only with [`Destination::commit`]; before, and after a failure, what was
/// there stays.
///
/// The bytes go to a file without a name in the same folder, which only its owner may read, and of which nothing
/// is left if the process is killed. Where the file system has no such files it is a temporary file.
#[derive(Debug)]
pub struct Destination {
    file: File,
    /// The name, if the file has one.
    temporary: Option<TempPath>,
    folder: PathBuf,
    path: PathBuf,
}

impl Destination {
    /// Prepares a file. One that exists is replaced by `commit`; a link is followed.
    ///
    /// # Errors
    /// If its folder cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let (file, temporary) = match unnamed(&folder) {
            Some(file) => (file, None),
            None => {
                let (file, path) = named(&folder)?.into_parts();
                (file, Some(path))
            }
        };
        Ok(Self {
            file,
            temporary,
            folder,
            path,
        })
    }

    /// Whether a path can be replaced: it does not exist, or is an ordinary file. Devices and pipes cannot.
    pub fn is_replaceable(path: &Path) -> bool {
        fs::metadata(path).map_or(true, |found| found.is_file())
    }

    /// The file to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file into its place.
    ///
    /// # Errors
    /// If the file cannot be written to its disk, or renamed.
    pub fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = match self.temporary {
            Some(path) => path,
            None => link(&self.file, &self.folder)?,
        };
        temporary.persist(&self.path).map_err(|error| error.error)
    }
}

/// A file without a name, if the file system can do that and name it later.
fn unnamed(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok()?;
    let file = File::from(file);
    fs::symlink_metadata(descriptor(&file)).ok()?;
    Some(file)
}

fn named(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder)
}

/// Gives a file without a name a temporary one.
fn link(file: &File, folder: &Path) -> io::Result<TempPath> {
    let linked = tempfile::Builder::new()
        .prefix(PREFIX)
        .make_in(folder, |path| {
            let from = descriptor(file);
            rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW)
                .map_err(io::Error::from)
        })?;
    Ok(linked.into_temp_path())
}

/// Where the kernel shows an open file.
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
