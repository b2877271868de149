//! Writes on a second thread, so that encryption and writing overlap.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use zeroize::Zeroizing;

use super::error::MessageError;

/// Bytes that are written at once, unless one frame is longer.
pub(super) const CHUNK: usize = 256 * 1024;
/// Chunks in memory, and when a frame is so long that two would need much memory.
const CHUNKS: usize = 4;
const CHUNKS_OF_LONG_FRAMES: usize = 1;
const LONG_CHUNK: usize = 1024 * 1024;

/// Bytes to write. They may be plain text, so they are wiped when it is dropped.
pub(super) type Chunk = Zeroizing<Vec<u8>>;

/// Hands chunks to the thread that writes them, and gets them back.
pub(super) struct Chunks {
    full: SyncSender<Chunk>,
    empty: Receiver<Chunk>,
}

impl Chunks {
    /// A chunk to fill, empty but with its capacity.
    ///
    /// # Errors
    /// If the writing thread failed. Its own error replaces this one.
    pub(super) fn take(&self) -> Result<Chunk, MessageError> {
        let mut chunk = self.empty.recv().map_err(|_| ended())?;
        chunk.clear();
        Ok(chunk)
    }

    /// Has a chunk written.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn write(&self, chunk: Chunk) -> Result<(), MessageError> {
        self.full.send(chunk).map_err(|_| ended())
    }
}

fn ended() -> MessageError {
    MessageError::Write(std::io::ErrorKind::BrokenPipe.into())
}

/// Runs `produce` on this thread; another one writes its chunks, each of at most `chunk_length` bytes, to
/// `output`.
///
/// # Errors
/// That of the output, else that of `produce`.
pub(super) fn write_behind<T>(
    output: &mut (impl Write + Send),
    chunk_length: usize,
    produce: impl FnOnce(&Chunks) -> Result<T, MessageError>,
) -> Result<T, MessageError> {
    let count = if chunk_length > LONG_CHUNK {
        CHUNKS_OF_LONG_FRAMES
    } else {
        CHUNKS
    };
    let (full, to_write) = sync_channel(count);
    let (written, empty) = channel();
    for _ in 0..count {
        let chunk = Zeroizing::new(Vec::with_capacity(chunk_length));
        // The receiver lives: it is below.
        let _ = written.send(chunk);
    }
    thread::scope(|scope| {
        let writer = scope.spawn(move || write_all(output, to_write, &written));
        let produced = {
            let chunks = Chunks { full, empty };
            produce(&chunks)
        };
        match writer.join() {
            Ok(Ok(())) => produced,
            Ok(Err(error)) => Err(MessageError::Write(error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn write_all(
    output: &mut impl Write,
    chunks: Receiver<Chunk>,
    written: &Sender<Chunk>,
) -> std::io::Result<()> {
    for chunk in chunks {
        output.write_all(&chunk)?;
        // Nobody wants chunks any more after the last one.
        let _ = written.send(chunk);
    }
    output.flush()
}
