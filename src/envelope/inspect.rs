//! The frames of a message, counted without any key.

use std::io::{self, Read};

use super::error::MessageError;
use super::frame::{expect_end, read_head};
use super::header::cut_or_failed;
use super::suite::TAG_LEN;

/// What the frames of a message say. Nothing of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSummary {
    /// Number of frames, the final one included.
    pub frames: u32,
    /// Length of the text in bytes.
    pub text_length: u64,
}

/// Counts the frames after a header. `skip` moves the input forward: it seeks in a file, and reads from a pipe.
///
/// # Errors
/// If frames are missing or out of order, bytes follow the final one, or the input fails.
pub fn inspect_frames<R: Read>(
    input: &mut R,
    frame_length: u32,
    mut skip: impl FnMut(&mut R, u64) -> io::Result<()>,
) -> Result<FrameSummary, MessageError> {
    let mut number = 1_u32;
    let mut text_length = 0;
    loop {
        let place = || format!("frame {number}");
        let (is_final, length) = read_head(input, number, frame_length)?;
        // The last byte is read: a seek would not notice the end of the file.
        let rest = u64::from(length) + TAG_LEN as u64 - 1;
        skip(input, rest).map_err(|error| cut_or_failed(error, place))?;
        let mut last = [0];
        input
            .read_exact(&mut last)
            .map_err(|error| cut_or_failed(error, place))?;
        text_length += u64::from(length);
        if is_final {
            break;
        }
        number = number.checked_add(1).ok_or(MessageError::TooLong)?;
    }
    expect_end(input)?;
    Ok(FrameSummary {
        frames: number,
        text_length,
    })
}
