//! Replaces the files of a volume atomically, like the driver's AtomicWriter.
//!
//! The files are in `target/..2026_01_02_03_04_05.<random>/`. The symlink `target/..data` points to
//! that folder, and the first component of each path is a symlink into `..data`. Renaming `..data`
//! replaces all files at once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tonic::Status;

use crate::proto::File;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `files` the content of the volume and returns whether anything was written.
///
/// Only names and contents are compared: if just a mode differs, nothing is written.
pub(super) fn write(target: &Path, files: &[File], now: Timestamp) -> Result<bool, Status> {
    for file in files {
        check(&file.path)?;
    }
    let failed = |error: io::Error| Status::unknown(format!("failed to write files: {error}"));
    let current = fs::read_link(target.join(DATA))
        .ok()
        .map(|name| target.join(name));
    let present = match &current {
        Some(folder) => list(folder, folder).map_err(failed)?,
        None => BTreeSet::new(),
    };
    let wanted: BTreeSet<PathBuf> = files.iter().map(|f| PathBuf::from(&f.path)).collect();
    let same = current.as_ref().is_some_and(|folder| {
        files
            .iter()
            .all(|f| fs::read(folder.join(&f.path)).is_ok_and(|old| old == f.contents))
    });
    if same && present == wanted {
        return Ok(false);
    }
    swap(target, files, now, current.as_deref(), &present, &wanted).map_err(failed)?;
    Ok(true)
}

fn swap(
    target: &Path,
    files: &[File],
    now: Timestamp,
    current: Option<&Path>,
    present: &BTreeSet<PathBuf>,
    wanted: &BTreeSet<PathBuf>,
) -> io::Result<()> {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(9)
        .collect();
    let name = format!("..{}.{random}", now.strftime("%Y_%m_%d_%H_%M_%S"));
    let folder = target.join(&name);
    fs::create_dir(&folder)?;
    for file in files {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.contents)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode as u32 & 0o7777))?;
    }
    let new = target.join(DATA_NEW);
    // An interrupted swap may have left it behind.
    let _ = fs::remove_file(&new);
    symlink(&name, &new)?;
    fs::rename(&new, target.join(DATA))?;
    for component in first_components(wanted) {
        let link = target.join(&component);
        match fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => continue,
            Ok(found) if found.is_dir() => fs::remove_dir_all(&link)?,
            Ok(_) => fs::remove_file(&link)?,
            Err(_) => {}
        }
        symlink(Path::new(DATA).join(&component), &link)?;
    }
    for component in first_components(present).difference(&first_components(wanted)) {
        fs::remove_file(target.join(component))?;
    }
    match current {
        Some(old) => fs::remove_dir_all(old),
        None => Ok(()),
    }
}

fn first_components(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    paths
        .iter()
        .filter_map(|p| p.components().next())
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect()
}

/// Returns all files below `folder`, relative to `root`.
fn list(root: &Path, folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(list(root, &path)?);
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_owned());
        }
    }
    Ok(found)
}

/// Checks a path against the rules of the driver, with its error messages.
fn check(path: &str) -> Result<(), Status> {
    let invalid = |why: &str| Err(Status::unknown(format!("invalid path {path:?}: {why}")));
    if path.is_empty() {
        return invalid("must not be empty");
    }
    if path.starts_with('/') {
        return invalid("must not be absolute");
    }
    if path.len() > 4096 {
        return invalid("must be less than or equal to 4096 characters");
    }
    for component in path.split('/') {
        match component {
            ".." => return invalid("must not contain '..'"),
            "" | "." => return invalid("must be a clean path"),
            _ if component.len() > 255 => {
                return invalid("must not have an element longer than 255 characters");
            }
            _ => {}
        }
    }
    if path.starts_with("..") {
        return invalid("must not start with '..'");
    }
    Ok(())
}
