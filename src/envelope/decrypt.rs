//! Reads a message.

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::error::MessageError;
use super::frame::{FrameLayout, expect_end, read_head};
use super::header::{Header, cut_or_failed};
use super::pipeline::{CHUNK, Chunk, Chunks, write_behind};
use super::suite::{MessageKey, TAG_LEN};
use crate::util::secret_bytes::SecretBytes;

const CHANGED: &str = "it was changed, or is of another message: its authentication tag is wrong";

/// A message whose header is authenticated, and whose frames can be decrypted.
pub struct OpenMessage {
    header: Header,
    key: MessageKey,
}

impl OpenMessage {
    /// Checks that the data key is that of the message, and then the header.
    ///
    /// # Errors
    /// If the key is another one, or the header was changed.
    pub fn unlock(header: Header, data_key: &SecretBytes) -> Result<Self, MessageError> {
        let (key, commitment) = MessageKey::derive(data_key, header.message_id)?;
        // Both are public: the header contains the commitment.
        if commitment != header.commitment {
            return Err(MessageError::Commitment);
        }
        if !key.is_header_tag(header.body(), header.tag()) {
            return Err(MessageError::HeaderTag);
        }
        Ok(Self { header, key })
    }

    /// The authenticated header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Decrypts all frames, and checks that nothing follows them. Returns the length of the text.
    ///
    /// `output` gets text as soon as its frame is authenticated. Whether the message is complete is known only
    /// when this returns: discard the text if it fails.
    ///
    /// # Errors
    /// If a frame was changed, lost, moved or repeated, or the input or the output fails.
    pub fn decrypt(
        &self,
        input: &mut impl Read,
        output: &mut (impl Write + Send),
    ) -> Result<u64, MessageError> {
        let chunk_length = self.chunk_length();
        write_behind(output, chunk_length, |chunks| {
            let mut length = 0;
            let mut number = 1;
            loop {
                let mut chunk = chunks.take()?;
                let mut is_final = false;
                while !is_final && chunk.len() + self.frame_room() <= chunk_length {
                    is_final = self.read_frame(input, number, &mut chunk)?;
                    if !is_final {
                        number = number.checked_add(1).ok_or(MessageError::TooLong)?;
                    }
                }
                length += chunk.len() as u64;
                if is_final {
                    expect_end(input)?;
                }
                chunks.write(chunk)?;
                if is_final {
                    return Ok(length);
                }
            }
        })
    }

    /// Decrypts a part of the text from an input whose position is after the header. Returns the length of the
    /// part: less than asked for where the text ends before.
    ///
    /// The final frame is authenticated first: the text has the length that the message says. Then each frame
    /// of the part is: its bytes stand at this place in this message. The other frames are not read.
    ///
    /// # Errors
    /// If one of these frames was changed, the message was cut, or the range begins after the end.
    pub fn decrypt_range(
        &self,
        input: &mut (impl Read + Seek),
        range: Range<u64>,
        output: &mut (impl Write + Send),
    ) -> Result<u64, MessageError> {
        let body = input.stream_position().map_err(MessageError::Read)?;
        let end = input.seek(SeekFrom::End(0)).map_err(MessageError::Read)?;
        let layout = FrameLayout::of(end.saturating_sub(body), self.header.frame_length);
        let layout = layout.ok_or_else(|| MessageError::Cut {
            place: "a frame, or bytes follow the final one".to_owned(),
        })?;
        let start_of = |index| SeekFrom::Start(body.saturating_add(layout.offset(index)));
        input
            .seek(start_of(layout.whole))
            .map_err(MessageError::Read)?;
        let mut last = Chunk::default();
        if !self.read_frame(input, layout.whole + 1, &mut last)? {
            let number = layout.whole + 1;
            let reason = "it is not the final frame: the message was cut";
            return Err(MessageError::Frame { number, reason });
        }
        expect_end(input)?;
        let length = layout.text_length();
        if range.start > length {
            let start = range.start;
            return Err(MessageError::Range { start, length });
        }
        let range = range.start..range.end.clamp(range.start, length);
        let frame_length = u64::from(self.header.frame_length);
        let first = (range.start / frame_length).min(u64::from(layout.whole));
        let first = u32::try_from(first).map_err(|_| MessageError::TooLong)?;
        input.seek(start_of(first)).map_err(MessageError::Read)?;
        write_behind(output, self.chunk_length(), |chunks| {
            self.read_part(input, first, layout.whole, &range, chunks)
        })?;
        Ok(range.end - range.start)
    }

    /// Reads frames from index `first` on, and hands on what the range has of each.
    fn read_part(
        &self,
        input: &mut impl Read,
        first: u32,
        last: u32,
        range: &Range<u64>,
        chunks: &Chunks,
    ) -> Result<(), MessageError> {
        let frame_length = u64::from(self.header.frame_length);
        for index in first..=last {
            let start = u64::from(index) * frame_length;
            if start >= range.end {
                break;
            }
            let mut chunk = chunks.take()?;
            let is_final = self.read_frame(input, index + 1, &mut chunk)?;
            if is_final != (index == last) {
                let number = index + 1;
                let reason = "the final frame is in the middle of the message";
                return Err(MessageError::Frame { number, reason });
            }
            let within = |at: u64| {
                let at = at.saturating_sub(start).min(chunk.len() as u64);
                usize::try_from(at).unwrap_or(chunk.len())
            };
            let (from, to) = (within(range.start), within(range.end));
            chunk.truncate(to);
            chunk.drain(..from);
            chunks.write(chunk)?;
        }
        Ok(())
    }

    /// Reads the frame with this number and appends its text; returns whether it is the final one.
    fn read_frame(
        &self,
        input: &mut impl Read,
        number: u32,
        chunk: &mut Chunk,
    ) -> Result<bool, MessageError> {
        let (is_final, length) = read_head(input, number, self.header.frame_length)?;
        let start = chunk.len();
        let length = length as usize;
        chunk.resize(start + length + TAG_LEN, 0);
        input
            .read_exact(&mut chunk[start..])
            .map_err(|error| cut_or_failed(error, || format!("frame {number}")))?;
        if self
            .key
            .open(number, is_final, &mut chunk[start..])
            .is_none()
        {
            let reason = CHANGED;
            return Err(MessageError::Frame { number, reason });
        }
        chunk.truncate(start + length);
        Ok(is_final)
    }

    /// Room that a frame needs in a chunk.
    fn frame_room(&self) -> usize {
        self.header.frame_length as usize + TAG_LEN
    }

    fn chunk_length(&self) -> usize {
        CHUNK.max(self.frame_room())
    }
}
