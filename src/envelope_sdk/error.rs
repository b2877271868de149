//! Why a message cannot be read or written.

use std::io;

use super::algorithm::SdkAlgorithm;

/// Why a message of Huawei's Encryption SDK cannot be read or written. Contains no text and no key.
#[derive(Debug, thiserror::Error)]
pub enum SdkError {
    /// The input is not in this format.
    #[error(
        "not a message of Huawei's Encryption SDK: it does not begin with a header of version 1"
    )]
    NotAMessage,
    /// The input ends inside a field.
    #[error("the message ends inside {0}: it was cut off, or damaged")]
    Truncated(&'static str),
    /// SM4, which the SDK offers too.
    #[error(
        "the message is encrypted with {0}, which is not supported; only AES-128-GCM and AES-256-GCM are"
    )]
    Sm4(&'static str),
    /// An algorithm that the SDK does not have.
    #[error(
        "unknown algorithm {0} in the message's header; known are 1 (AES-128-GCM) and 2 (AES-256-GCM)"
    )]
    UnknownAlgorithm(u16),
    /// A field of the header that the SDK never writes like that.
    #[error("invalid {field} in the message's header: {problem}")]
    Header {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The header's tag does not fit.
    #[error(
        "the message's header was changed, or the data key is another message's: its tag does not match"
    )]
    HeaderTag,
    /// A block's tag, or the one of a memory message, does not fit.
    #[error("block {0} was changed or belongs to another message: its tag does not match")]
    BlockTag(u64),
    /// The same block twice. A writer never uses an IV again.
    #[error("block {0} is a copy of an earlier block: the message was changed")]
    RepeatedBlock(u64),
    /// A length that is over a limit or too short for a tag.
    #[error("invalid length of block {block}: {length} bytes; allowed are 16 to {limit}")]
    BlockLength {
        /// Number of the block, from 1.
        block: u64,
        /// The length in the message.
        length: u64,
        /// The largest length allowed.
        limit: u64,
    },
    /// Bytes after the tag of a memory message.
    #[error(
        "there are bytes after the end of the message; the SDK ignores them, this program does not"
    )]
    TrailingBytes,
    /// The text is not the one that the context declares.
    #[error(
        "the text is not the one that was encrypted: the context declares {declared_length} bytes and their \
         SHA-256, the message has {length} bytes{}; blocks were removed, moved or cut off",
        if declared_length == length { " with another digest" } else { "" }
    )]
    Declaration {
        /// Bytes of text that the context declares.
        declared_length: u64,
        /// Bytes of text in the message.
        length: u64,
    },
    /// The text to encrypt changed between the two passes.
    #[error(
        "the text changed while it was encrypted: it had {declared_length} bytes in the first pass and \
         {length} in the second; encrypt it again"
    )]
    TextChanged {
        /// Bytes in the first pass.
        declared_length: u64,
        /// Bytes in the second pass.
        length: u64,
    },
    /// A context that cannot be written so that the SDK opens it again.
    #[error("invalid encryption context: {0}")]
    Context(String),
    /// A data key of the wrong length.
    #[error(
        "the data key has {length} bytes; {algorithm} needs {}",
        algorithm.key_length()
    )]
    DekLength {
        /// The message's algorithm.
        algorithm: SdkAlgorithm,
        /// The data key's length in bytes.
        length: usize,
    },
    /// Too much text for one message.
    #[error("the text is too long for {0}")]
    TooLong(&'static str),
    /// The operating system gave no random bytes.
    #[error("the operating system returned no random bytes")]
    Random,
    /// Reading the input failed.
    #[error("cannot read the input: {0}")]
    Read(#[source] io::Error),
    /// Writing the output failed.
    #[error("cannot write the output: {0}")]
    Write(#[source] io::Error),
}

impl SdkError {
    pub(super) fn header(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Header {
            field,
            problem: problem.into(),
        }
    }
}
