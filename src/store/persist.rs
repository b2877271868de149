//! The store's file: what was fetched, for the provider that comes after a restart.
//!
//! It holds values, so it is on a file system that is memory, and for this user only. It is used
//! whole or not at all: a file that is damaged, or that somebody else may have had in hands, is as
//! good as none.

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

use super::MAX_BYTES;
use super::entry::{Entry, Saved};
use crate::clock::Clock;
use crate::secret::SecretBytes;

const NAME: &str = "store";
/// What the file is called until it is whole.
const NEXT: &str = "store.next";
const MAGIC: &[u8] = b"dew-provider store\n";
const FORMAT: u32 = 1;
const HEAD: usize = MAGIC.len() + size_of::<u32>();
/// As many bytes as the store holds, its allowance for names included.
const MAX_FILE: usize = MAX_BYTES;
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// What is written there may reach a disk.
    #[error("--store-dir {}: it is not on a tmpfs, and values of secrets must not reach a disk: choose a folder below /run or /dev/shm, or leave the flag out", .0.display())]
    Disk(PathBuf),
    /// Others may put files there.
    #[error("--store-dir {}: others may write there: it must belong to the user of this process (chown), with mode 0755 or less (chmod)", .0.display())]
    Open(PathBuf),
    /// Another process saves there.
    #[error("--store-dir {}: another provider uses it: stop it, or give this one another folder", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("--store-dir {}: {what}", .path.display())]
    System {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The file, and the folder that it is in, which is this process's alone until it is closed.
pub struct StoreFile {
    path: PathBuf,
    /// `None` once it is closed.
    folder: Mutex<Option<OwnedFd>>,
    clock: Clock,
}

/// What a file held.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) saved: Vec<Saved>,
    /// Whether there is more in the file than that, or something else.
    pub(super) outdated: bool,
}

impl StoreFile {
    /// Takes the folder, which is made if it is missing.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn open(path: &Path, clock: Clock) -> Result<Self, FolderError> {
        let system = |what| {
            move |source: io::Error| FolderError::System {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(system("it cannot be made"))?;
        let unusable = |errno: Errno| system("it cannot be used")(errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(unusable)?;
        // The number is as wide as a register, of which it fills the lower half.
        if !matches!(
            fstatfs(&folder).map_err(unusable)?.f_type as u32,
            TMPFS | RAMFS
        ) {
            return Err(FolderError::Disk(path.to_owned()));
        }
        let stat = fstat(&folder).map_err(unusable)?;
        let others = Mode::from_raw_mode(stat.st_mode) & (Mode::WGRP | Mode::WOTH);
        if stat.st_uid != geteuid().as_raw() || !others.is_empty() {
            return Err(FolderError::Open(path.to_owned()));
        }
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(FolderError::InUse(path.to_owned())),
            other => other.map_err(unusable)?,
        }
        // Of a process that was killed as it wrote.
        remove(&folder, NEXT).map_err(system("a file in it cannot be removed"))?;
        Ok(Self {
            path: path.join(NAME),
            folder: Mutex::new(Some(folder)),
            clock,
        })
    }

    /// What was saved and is younger than `limit`. What cannot be used is told in the log.
    pub(super) fn load(&self, limit: Duration) -> Loaded {
        let path = self.path.display();
        match self
            .read()
            .and_then(|bytes| bytes.map_or(Ok(Vec::new()), decode))
        {
            Ok(entries) => {
                let (count, now) = (entries.len(), (Instant::now(), self.now()));
                let saved: Vec<_> = entries
                    .into_iter()
                    .filter_map(|entry| entry.into_saved(now, limit))
                    .collect();
                if count > 0 {
                    tracing::info!(%path, versions = saved.len(), outdated = count - saved.len(), "read what was saved before the restart");
                }
                Loaded {
                    outdated: saved.len() < count,
                    saved,
                }
            }
            Err(why) => {
                tracing::warn!(%path, why, "the file of what was fetched before the restart is not used, and will be replaced");
                Loaded {
                    saved: Vec::new(),
                    outdated: true,
                }
            }
        }
    }

    /// The file, if there is one; or why it is not to be trusted.
    fn read(&self) -> Result<Option<Bytes>, String> {
        let folder = self.folder();
        let Some(folder) = &*folder else {
            return Ok(None);
        };
        // Not to wait for the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(folder, NAME, flags, Mode::empty()) {
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
                "its mode {:04o} lets others use it",
                mode.as_raw_mode()
            ));
        }
        let length = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if length > MAX_FILE {
            return Err(format!("it has {length} bytes, of at most {MAX_FILE}"));
        }
        let mut bytes = Zeroizing::new(vec![0; length]);
        let read = File::from(file).read_exact(&mut bytes);
        read.map_err(|error| error.to_string())?;
        Ok(Some(
            SecretBytes::new(std::mem::take(&mut *bytes)).into_bytes(),
        ))
    }

    /// Puts a file with what there is now in the place of the last one; a reader sees the one or
    /// the other.
    pub(super) fn write(&self, saved: impl FnOnce() -> Vec<Saved>) -> io::Result<()> {
        let folder = self.folder();
        let Some(folder) = &*folder else {
            return Ok(());
        };
        remove(folder, NEXT)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(folder, NEXT, flags, Mode::RUSR | Mode::WUSR)?;
        let written = self
            .fill(file.into(), &saved())
            .and_then(|()| Ok(renameat(folder, NEXT, folder, NAME)?));
        if written.is_err() {
            // The first failure tells more.
            let _ = remove(folder, NEXT);
        }
        written
    }

    fn fill(&self, mut file: File, saved: &[Saved]) -> io::Result<()> {
        let now = (Instant::now(), self.now());
        let mut hash = Context::new(&SHA256);
        let mut length = HEAD + SHA256_OUTPUT_LEN;
        let mut write = |bytes: &[u8]| {
            hash.update(bytes);
            file.write_all(bytes)
        };
        write(MAGIC)?;
        write(&FORMAT.to_be_bytes())?;
        for saved in saved {
            let entry = Entry::new(saved, now);
            let size = entry.encoded_len();
            let size = prost::length_delimiter_len(size) + size;
            if length + size > MAX_FILE {
                continue;
            }
            length += size;
            // Of the right size from the start, so that it never moves and leaves a copy.
            let mut bytes = Zeroizing::new(Vec::with_capacity(size));
            entry
                .encode_length_delimited(&mut *bytes)
                .map_err(io::Error::other)?;
            write(&bytes)?;
        }
        let hash = hash.finish();
        file.write_all(hash.as_ref())
    }

    /// Removes the file, where it cannot be replaced and must not stay.
    pub(super) fn remove(&self) -> io::Result<()> {
        match &*self.folder() {
            Some(folder) => remove(folder, NAME),
            None => Ok(()),
        }
    }

    /// Leaves the folder to the next process; nothing is written after that.
    pub(super) fn close(&self) {
        *self.folder() = None;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn folder(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

/// The entries of a whole file.
fn decode(mut bytes: Bytes) -> Result<Vec<Entry>, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("it is not a store".to_owned());
    }
    if bytes.len() < HEAD + SHA256_OUTPUT_LEN {
        return Err("it is cut short".to_owned());
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
    let mut entries = Vec::new();
    while bytes.has_remaining() {
        // The decoder's own words may quote.
        let entry = Entry::decode_length_delimited(&mut bytes);
        entries.push(entry.map_err(|_| "it holds what is no entry".to_owned())?);
    }
    Ok(entries)
}
