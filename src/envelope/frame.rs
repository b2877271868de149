//! The layout of frames.
//!
//! A frame is number (4 bytes), IV (12), ciphertext, tag (16). The final one is 0xFFFFFFFF (4), number (4),
//! IV (12), length (4), ciphertext, tag (16).

use std::io::{self, Read};

use super::error::MessageError;
use super::header::cut_or_failed;
use super::suite::{IV_LEN, TAG_LEN, frame_iv};

/// What stands in the place of a number before the final frame.
const FINAL_MARK: u32 = u32::MAX;
/// Bytes of a frame before its ciphertext.
pub(super) const FRAME_HEAD: usize = 4 + IV_LEN;
/// Bytes of the final frame before its ciphertext.
pub(super) const FINAL_HEAD: usize = 4 + 4 + IV_LEN + 4;

/// The bytes of a frame but its ciphertext.
const FRAME_OVERHEAD: u64 = (FRAME_HEAD + TAG_LEN) as u64;
const FINAL_OVERHEAD: u64 = (FINAL_HEAD + TAG_LEN) as u64;

/// Writes the head of a frame.
pub(super) fn frame_head(number: u32) -> [u8; FRAME_HEAD] {
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(&number.to_be_bytes());
    head[4..].copy_from_slice(&frame_iv(number));
    head
}

/// Writes the head of the final frame.
pub(super) fn final_head(number: u32, length: u32) -> [u8; FINAL_HEAD] {
    let mut head = [0; FINAL_HEAD];
    head[..4].copy_from_slice(&FINAL_MARK.to_be_bytes());
    head[4..8].copy_from_slice(&number.to_be_bytes());
    head[8..8 + IV_LEN].copy_from_slice(&frame_iv(number));
    head[8 + IV_LEN..].copy_from_slice(&length.to_be_bytes());
    head
}

/// Checks the head of the frame with this number.
fn check_frame_head(head: &[u8], number: u32) -> Result<(), MessageError> {
    if *head == frame_head(number) {
        Ok(())
    } else {
        let reason = "its number or IV is not the next one: frames were lost, repeated or moved";
        Err(MessageError::Frame { number, reason })
    }
}

/// Checks the head of the final frame with this number; returns the length of its text.
fn check_final_head(
    head: &[u8; FINAL_HEAD],
    number: u32,
    frame_length: u32,
) -> Result<u32, MessageError> {
    let [.., a, b, c, d] = *head;
    let length = u32::from_be_bytes([a, b, c, d]);
    let reason = if *head != final_head(number, length) {
        "the number or IV of the final frame is not the next one: frames were lost, repeated or moved"
    } else if length > frame_length {
        "the final frame is longer than the header says"
    } else {
        return Ok(length);
    };
    Err(MessageError::Frame { number, reason })
}

/// Reads the head of the frame with this number; returns whether it is the final one, and the length of its text.
pub(super) fn read_head(
    input: &mut impl Read,
    number: u32,
    frame_length: u32,
) -> Result<(bool, u32), MessageError> {
    let mut head = [0; FINAL_HEAD];
    let mut read = |buffer: &mut [u8]| {
        input
            .read_exact(buffer)
            .map_err(|error| cut_or_failed(error, || format!("frame {number}")))
    };
    read(&mut head[..FRAME_HEAD])?;
    if head[..4] == FINAL_MARK.to_be_bytes() {
        read(&mut head[FRAME_HEAD..])?;
        return Ok((true, check_final_head(&head, number, frame_length)?));
    }
    check_frame_head(&head[..FRAME_HEAD], number)?;
    Ok((false, frame_length))
}

/// Checks that the input has ended.
pub(super) fn expect_end(input: &mut impl Read) -> Result<(), MessageError> {
    loop {
        match input.read(&mut [0]) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(MessageError::TrailingBytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MessageError::Read(error)),
        }
    }
}

/// The frames of a message, computed from the length of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameLayout {
    frame_length: u64,
    /// Number of frames before the final one.
    pub(super) whole: u32,
    /// Length of the final frame's text.
    pub(super) last: u32,
}

impl FrameLayout {
    /// `body` is the length of everything after the header. `None` if frames of this length cannot fill it:
    /// the message was cut, or something follows it.
    pub(super) fn of(body: u64, frame_length: u32) -> Option<Self> {
        let frame_length = u64::from(frame_length);
        let rest = body.checked_sub(FINAL_OVERHEAD)?;
        let whole = rest / (frame_length + FRAME_OVERHEAD);
        let last = rest % (frame_length + FRAME_OVERHEAD);
        if last > frame_length || whole >= u64::from(u32::MAX) {
            return None;
        }
        Some(Self {
            frame_length,
            whole: u32::try_from(whole).ok()?,
            last: u32::try_from(last).ok()?,
        })
    }

    /// Length of the text.
    pub(super) fn text_length(self) -> u64 {
        u64::from(self.whole) * self.frame_length + u64::from(self.last)
    }

    /// Where a frame begins, counted from the end of the header. The first frame is 0.
    pub(super) fn offset(self, index: u32) -> u64 {
        u64::from(index) * (self.frame_length + FRAME_OVERHEAD)
    }
}
