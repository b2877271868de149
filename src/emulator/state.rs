//! The file that keeps secrets between runs.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::model::Projects;

/// Format of the file.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<P> {
    format: u32,
    projects: P,
}

/// Reads the file; none is an empty cloud, a damaged one an error.
pub(super) fn load(path: &Path) -> Result<Projects> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Projects::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // serde_json's own text may quote a value.
    let file: File<Projects> = serde_json::from_slice(&bytes).map_err(|error| {
        anyhow!(
            "state file {} is damaged at line {} column {} ({:?}); it is left as it is: repair it, or name another file",
            path.display(), error.line(), error.column(), error.classify()
        )
    })?;
    anyhow::ensure!(
        file.format == FORMAT,
        "state file {} has format {}, this program reads {FORMAT}; name another file",
        path.display(),
        file.format
    );
    Ok(file.projects)
}

/// Replaces the file as a whole. Made with mode 0600, since it holds values.
pub(super) fn save(path: &Path, projects: &Projects) -> Result<()> {
    let file = File {
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
