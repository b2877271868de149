//! The snapshot file, which preserves cached versions across restarts of the provider.
//!
//! It contains values, so it must be on a tmpfs and readable by this user only. The provider uses it as a
//! whole or not at all: it ignores a file that is damaged, or that somebody else could have written.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use prost::Message as _;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, fstatfs};
use rustix::fs::{openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::record::{SavedVersion, SnapshotRecord};
use crate::util::clock::Clock;
use crate::util::secret_bytes::SecretBytes;

const FILE_NAME: &str = "store";
/// The name of the file until it is complete.
const PARTIAL_NAME: &str = "store.next";
const MAGIC: &[u8] = b"dew-provider store\n";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();
/// Largest file, in bytes: as much as the cache holds.
const MAX_FILE_BYTES: usize = 24 * 1024 * 1024;
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotDirError {
    /// Files there may reach a disk.
    #[error("--store-dir {}: not on a tmpfs, and secrets must not reach a disk: choose a directory below /run or /dev/shm, or omit the flag", .0.display())]
    Disk(PathBuf),
    /// Others may write there.
    #[error("--store-dir {}: others may write there: it must be owned by the user of this process (chown) and have mode 0755 or stricter (chmod)", .0.display())]
    Open(PathBuf),
    /// Another process uses it.
    #[error("--store-dir {}: in use by another provider: stop that one, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A system call failed.
    #[error("--store-dir {}: {what}", .path.display())]
    System {
        /// The directory.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// The file and its directory, which is locked for this process until it is closed.
pub struct SnapshotFile {
    path: PathBuf,
    /// `None` once closed.
    dir: Mutex<Option<OwnedFd>>,
    clock: Clock,
}

#[derive(Default)]
pub(super) struct LoadedSnapshot {
    pub(super) versions: Vec<SavedVersion>,
    /// Whether the file has to be replaced: it contains other versions too, or cannot be used.
    pub(super) outdated: bool,
}

impl SnapshotFile {
    /// Opens and locks the directory; creates it if it does not exist.
    ///
    /// # Errors
    /// See [`SnapshotDirError`].
    pub fn open(path: &Path, clock: Clock) -> Result<Self, SnapshotDirError> {
        let system = |what| {
            move |source: io::Error| SnapshotDirError::System {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(system("cannot be created"))?;
        let unusable = |errno: Errno| system("cannot be used")(errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(unusable)?;
        // `f_type` is as wide as a register; the magic number is in its lower half.
        if !matches!(
            fstatfs(&dir).map_err(unusable)?.f_type as u32,
            TMPFS_MAGIC | RAMFS_MAGIC
        ) {
            return Err(SnapshotDirError::Disk(path.to_owned()));
        }
        let stat = fstat(&dir).map_err(unusable)?;
        let others = Mode::from_raw_mode(stat.st_mode) & (Mode::WGRP | Mode::WOTH);
        if stat.st_uid != geteuid().as_raw() || !others.is_empty() {
            return Err(SnapshotDirError::Open(path.to_owned()));
        }
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(SnapshotDirError::InUse(path.to_owned())),
            other => other.map_err(unusable)?,
        }
        // Left behind by a process that was killed while it wrote.
        remove(&dir, PARTIAL_NAME).map_err(system("a file in it cannot be removed"))?;
        Ok(Self {
            path: path.join(FILE_NAME),
            dir: Mutex::new(Some(dir)),
            clock,
        })
    }

    /// Loads the versions that were confirmed within `limit`. Logs why a file cannot be used.
    pub(super) fn load(&self, limit: Duration) -> LoadedSnapshot {
        let path = self.path.display();
        match self
            .read()
            .and_then(|bytes| bytes.map_or(Ok(Vec::new()), decode))
        {
            Ok(records) => {
                let (count, now) = (records.len(), (Instant::now(), self.now()));
                let versions: Vec<_> = records
                    .into_iter()
                    .filter_map(|record| record.into_saved(now, limit))
                    .collect();
                if count > 0 {
                    tracing::info!(%path, versions = versions.len(), outdated = count - versions.len(), "loaded the snapshot");
                }
                LoadedSnapshot {
                    outdated: versions.len() < count,
                    versions,
                }
            }
            Err(why) => {
                tracing::warn!(%path, why, "ignoring the snapshot file, which will be replaced");
                LoadedSnapshot {
                    versions: Vec::new(),
                    outdated: true,
                }
            }
        }
    }

    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// Why the file cannot be trusted.
    fn read(&self) -> Result<Option<Bytes>, String> {
        let dir = self.dir();
        let Some(dir) = &*dir else {
            return Ok(None);
        };
        // Do not block on a named pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, FILE_NAME, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err("it is a symbolic link".to_owned()),
            Err(errno) => return Err(errno.to_string()),
        };
        let stat = fstat(&file).map_err(|errno| errno.to_string())?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("it is not a regular file".to_owned());
        }
        if stat.st_uid != geteuid().as_raw() {
            return Err(format!("it belongs to user {}", stat.st_uid));
        }
        if mode.intersects(Mode::RWXG | Mode::RWXO) {
            return Err(format!(
                "its mode {:04o} gives others access",
                mode.as_raw_mode()
            ));
        }
        let length = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if length > MAX_FILE_BYTES {
            return Err(format!(
                "it is too large: {length} bytes (limit {MAX_FILE_BYTES})"
            ));
        }
        let mut bytes = Zeroizing::new(vec![0; length]);
        let read = File::from(file).read_exact(&mut bytes);
        read.map_err(|error| error.to_string())?;
        Ok(Some(
            SecretBytes::new(std::mem::take(&mut *bytes)).into_bytes(),
        ))
    }

    /// Replaces the file atomically.
    pub(super) fn write(&self, versions: impl FnOnce() -> Vec<SavedVersion>) -> io::Result<()> {
        let dir = self.dir();
        let Some(dir) = &*dir else {
            return Ok(());
        };
        remove(dir, PARTIAL_NAME)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(dir, PARTIAL_NAME, flags, Mode::RUSR | Mode::WUSR)?;
        let written = self
            .fill(file.into(), &versions())
            .and_then(|()| Ok(renameat(dir, PARTIAL_NAME, dir, FILE_NAME)?));
        if written.is_err() {
            // The first error matters more than that of the removal.
            let _ = remove(dir, PARTIAL_NAME);
        }
        written
    }

    fn fill(&self, mut file: File, versions: &[SavedVersion]) -> io::Result<()> {
        let now = (Instant::now(), self.now());
        let mut hash = Context::new(&SHA256);
        let mut length = HEADER_BYTES + SHA256_OUTPUT_LEN;
        let mut write = |bytes: &[u8]| {
            hash.update(bytes);
            file.write_all(bytes)
        };
        write(MAGIC)?;
        write(&FORMAT.to_be_bytes())?;
        for saved in versions {
            let record = SnapshotRecord::new(saved, now);
            let size = record.encoded_len();
            let size = prost::length_delimiter_len(size) + size;
            if length + size > MAX_FILE_BYTES {
                continue;
            }
            length += size;
            // Allocated in full, so that it never reallocates and leaves a copy.
            let mut bytes = Zeroizing::new(Vec::with_capacity(size));
            record
                .encode_length_delimited(&mut *bytes)
                .map_err(io::Error::other)?;
            write(&bytes)?;
        }
        let hash = hash.finish();
        file.write_all(hash.as_ref())
    }

    /// Removes the file, for when it can neither be replaced nor stay.
    pub(super) fn remove(&self) -> io::Result<()> {
        match &*self.dir() {
            Some(dir) => remove(dir, FILE_NAME),
            None => Ok(()),
        }
    }

    /// Releases the directory to the next process. Nothing is written after that.
    pub(super) fn close(&self) {
        *self.dir() = None;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn dir(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// The records of a whole file.
fn decode(mut bytes: Bytes) -> Result<Vec<SnapshotRecord>, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("it is not a snapshot".to_owned());
    }
    if bytes.len() < HEADER_BYTES + SHA256_OUTPUT_LEN {
        return Err("it is truncated".to_owned());
    }
    let sum = bytes.split_off(bytes.len() - SHA256_OUTPUT_LEN);
    if digest(&SHA256, &bytes).as_ref() != sum {
        return Err("its checksum is wrong".to_owned());
    }
    bytes.advance(MAGIC.len());
    let format = bytes.get_u32();
    if format != FORMAT {
        return Err(format!("its format is {format}, not {FORMAT}"));
    }
    let mut records = Vec::new();
    while bytes.has_remaining() {
        // The decoder's own message may quote the data.
        let record = SnapshotRecord::decode_length_delimited(&mut bytes);
        records.push(record.map_err(|_| "it contains an invalid record".to_owned())?);
    }
    Ok(records)
}
