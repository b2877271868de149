//! Standard output, whose reader may go away.

use std::io::{self, ErrorKind, Write};

use super::text::io_reason;

/// Why standard output takes nothing more.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Its reader is gone, as after `| head`. Nobody wants the rest, so the program ends quietly.
    #[error("standard output is closed")]
    Closed,
    /// It cannot be written, for example because a disk is full.
    #[error("cannot write to standard output: {}", io_reason(.0))]
    Failed(io::Error),
}

/// Writes to standard output.
///
/// # Errors
/// See [`OutputError`].
pub fn print(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}
