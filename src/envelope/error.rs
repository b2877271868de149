//! Why a message cannot be written or read.

use std::io;

use crate::util::text::io_reason;

/// The error of a [`super::KeyProvider`].
pub type KeyError = Box<dyn std::error::Error + Send + Sync>;

/// Why a message cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The first bytes are those of another format.
    #[error("not an encrypted message: it starts with {found}, a message with 02 04 78")]
    NotAMessage {
        /// The first bytes, in hexadecimal.
        found: String,
    },
    /// A message of the AWS Encryption SDK that uses something else than suite 0x0478 with frames.
    #[error(
        "{what} is not supported: encrypt with suite 0x0478 \
             (AES_256_GCM_HKDF_SHA512_COMMIT_KEY), format version 2, in frames"
    )]
    Unsupported {
        /// What the message uses.
        what: String,
    },
    /// The header is malformed, or exceeds a limit.
    #[error("{field}: {reason}")]
    Header {
        /// The field, such as `encryption context`.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The input ends before the final frame does.
    #[error("the message was cut: it ends in {place}")]
    Cut {
        /// Where it ends, such as `the header` or `frame 3`.
        place: String,
    },
    /// The data key is not the one that the message was encrypted with.
    #[error(
        "the unwrapped data key is not the key of this message (key commitment); the header or a \
             wrapped key was changed"
    )]
    Commitment,
    /// The header's tag is wrong.
    #[error("the header was changed: its authentication tag is wrong")]
    HeaderTag,
    /// A frame is malformed, out of order or changed.
    #[error("frame {number}: {reason}")]
    Frame {
        /// The number that the frame should have; the first is 1.
        number: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// There are bytes after the final frame.
    #[error("bytes follow the final frame: they are not part of the message")]
    TrailingBytes,
    /// The text has more frames than the format can number.
    #[error("the text is too long: a message has at most {} frames", u32::MAX)]
    TooLong,
    /// The range begins after the end of the text.
    #[error("the range begins at {start}, the text has {length} bytes")]
    Range {
        /// First byte of the range.
        start: u64,
        /// Length of the text.
        length: u64,
    },
    /// The input cannot be read.
    #[error("cannot read: {}", io_reason(.0))]
    Read(io::Error),
    /// The output cannot be written.
    #[error("cannot write: {}", io_reason(.0))]
    Write(io::Error),
    /// No random numbers, or a key of the wrong length.
    #[error("{0}")]
    Crypto(&'static str),
}
