//! The file that persists secrets and keys between runs.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::kms::KeysByProject;
use super::model::SecretsByProject;

/// Version of the file format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile<P, K> {
    format: u32,
    projects: P,
    /// Files of older versions have none.
    #[serde(default)]
    keys: K,
}

/// Reads the state file. A missing file means no secrets and keys; a damaged one is an error.
pub(super) fn load(path: &Path) -> Result<(SecretsByProject, KeysByProject)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // The text of a serde_json error may quote a value, so only its position and class are shown.
    let file: StateFile<SecretsByProject, KeysByProject> = serde_json::from_slice(&bytes).map_err(|error| {
        anyhow!(
            "state file {} is damaged at line {} column {} ({:?}); the file was left unchanged: repair it or choose another file",
            path.display(), error.line(), error.column(), error.classify()
        )
    })?;
    anyhow::ensure!(
        file.format == FORMAT,
        "state file {} has format {}, but this version reads format {FORMAT}; choose another file",
        path.display(),
        file.format
    );
    Ok((file.projects, file.keys))
}

/// Replaces the state file atomically. It has mode 0600 because it contains values.
pub(super) fn save(path: &Path, projects: &SecretsByProject, keys: &KeysByProject) -> Result<()> {
    let file = StateFile {
        format: FORMAT,
        projects,
        keys,
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut temporary = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    temporary.write_all(&serde_json::to_vec(&file)?)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}
