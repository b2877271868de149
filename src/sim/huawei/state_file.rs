//! The file that persists secrets between runs.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::model::SecretsByProject;

/// Version of the file format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile<P> {
    format: u32,
    projects: P,
}

/// Reads the state file. A missing file means no secrets; a damaged one is an error.
pub(super) fn load(path: &Path) -> Result<SecretsByProject> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SecretsByProject::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // The text of a serde_json error may quote a value, so only its position and class are shown.
    let file: StateFile<SecretsByProject> = serde_json::from_slice(&bytes).map_err(|error| {
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
    Ok(file.projects)
}

/// Replaces the state file atomically. It has mode 0600 because it contains values.
pub(super) fn save(path: &Path, projects: &SecretsByProject) -> Result<()> {
    let file = StateFile {
        format: FORMAT,
        projects,
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut temporary = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    temporary.write_all(&serde_json::to_vec(&file)?)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}
