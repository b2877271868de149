//! Reads values from files and standard input; never from an argument, which other users of the machine can see.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use super::output::note;

/// Reads at most `limit` bytes of a file, or of standard input if it is `-`.
pub(super) fn read(file: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    // Room for everything, so that no copy is left behind as it grows.
    let room = usize::try_from(limit)?.min(1 << 20);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    if file == Path::new("-") {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            note(
                "type the value, then Ctrl-D (it is visible as you type; a file or pipe is safer)",
            );
        }
        stdin
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("standard input")?;
    } else {
        let shown = file.display();
        std::fs::File::open(file)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {shown}"))?;
    }
    Ok(bytes)
}
