//! Writes a message.

use std::io::{self, Read, Write};

use ring::rand::SecureRandom;

use super::context::EncryptionContext;
use super::error::MessageError;
use super::frame::{FINAL_HEAD, FRAME_HEAD, final_head, frame_head};
use super::header::{Header, WrappedKey};
use super::pipeline::{CHUNK, Chunk, Chunks, write_behind};
use super::suite::{MessageId, MessageKey, TAG_LEN};
use crate::util::secret_bytes::SecretBytes;

/// Length of a frame's text in the messages of this program, in bytes.
pub const DEFAULT_FRAME: u32 = 64 * 1024;

/// What a message is encrypted with.
pub struct NewMessage {
    /// The encryption context.
    pub context: EncryptionContext,
    /// A data key that was used for no other message.
    pub data_key: SecretBytes,
    /// The data key, wrapped.
    pub keys: Vec<WrappedKey>,
    /// Length of a frame's text: [`DEFAULT_FRAME`], but for tests.
    pub frame_length: u32,
}

/// Encrypts `input` to its end. Returns the header that was written.
///
/// # Errors
/// If the header exceeds a limit, or the input or the output fails.
pub fn encrypt(
    message: NewMessage,
    random: &dyn SecureRandom,
    input: &mut impl Read,
    output: &mut (impl Write + Send),
) -> Result<Header, MessageError> {
    let mut message_id = MessageId::default();
    random
        .fill(&mut message_id)
        .map_err(|_| MessageError::Crypto("the system has no random numbers"))?;
    let (key, commitment) = MessageKey::derive(&message.data_key, message_id)?;
    let header = Header::build(
        message_id,
        message.context,
        message.keys,
        message.frame_length,
        commitment,
        |body| key.header_tag(body),
    )?;
    output
        .write_all(&header.to_bytes())
        .map_err(MessageError::Write)?;
    let frame_length = message.frame_length as usize;
    let frame_room = frame_length + FINAL_HEAD + TAG_LEN;
    let chunk_length = CHUNK.max(frame_room);
    write_behind(output, chunk_length, |chunks| {
        let mut frames = FrameWriter {
            key: &key,
            input,
            ahead: None,
            number: 1,
        };
        frames.write(chunks, frame_length, chunk_length - frame_room)
    })?;
    Ok(header)
}

/// Reads text and seals it, frame by frame.
struct FrameWriter<'a, R> {
    key: &'a MessageKey,
    input: &'a mut R,
    /// The first byte of the next frame, read to learn whether there is one.
    ahead: Option<u8>,
    number: u32,
}

impl<R: Read> FrameWriter<'_, R> {
    /// Writes all frames. A chunk takes another frame while it has at most `full` bytes.
    fn write(
        &mut self,
        chunks: &Chunks,
        frame_length: usize,
        full: usize,
    ) -> Result<(), MessageError> {
        loop {
            let mut chunk = chunks.take()?;
            let mut is_final = false;
            while !is_final && chunk.len() <= full {
                is_final = self.frame(&mut chunk, frame_length)?;
            }
            chunks.write(chunk)?;
            if is_final {
                return Ok(());
            }
        }
    }

    /// Appends the next frame; returns whether it is the final one.
    fn frame(&mut self, chunk: &mut Chunk, frame_length: usize) -> Result<bool, MessageError> {
        let start = chunk.len();
        let text = start + FRAME_HEAD;
        chunk.resize(text + frame_length, 0);
        let mut end = text;
        if let Some(byte) = self.ahead.take() {
            chunk[end] = byte;
            end += 1;
        }
        end += read_full(self.input, &mut chunk[end..])?;
        let mut next = [0];
        let is_final = end < chunk.len() || read_full(self.input, &mut next)? == 0;
        if is_final {
            let length = end - text;
            let head = u32::try_from(length).map(|length| final_head(self.number, length));
            let head = head.map_err(|_| MessageError::TooLong)?;
            chunk.truncate(end);
            chunk.resize(start + FINAL_HEAD + length, 0);
            chunk.copy_within(text..end, start + FINAL_HEAD);
            chunk[start..start + FINAL_HEAD].copy_from_slice(&head);
            let text = &mut chunk[start + FINAL_HEAD..];
            let tag = self.key.seal(self.number, true, text)?;
            chunk.extend_from_slice(&tag);
        } else {
            self.ahead = Some(next[0]);
            chunk[start..text].copy_from_slice(&frame_head(self.number));
            let tag = self.key.seal(self.number, false, &mut chunk[text..])?;
            chunk.extend_from_slice(&tag);
            // The number of the final frame may be the largest: its place before it is the mark's.
            self.number = self.number.checked_add(1).ok_or(MessageError::TooLong)?;
        }
        Ok(is_final)
    }
}

/// Reads until the buffer is full or the input ends.
fn read_full(input: &mut impl Read, mut buffer: &mut [u8]) -> Result<usize, MessageError> {
    let mut length = 0;
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(read) => {
                length += read;
                buffer = &mut buffer[read..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MessageError::Read(error)),
        }
    }
    Ok(length)
}
