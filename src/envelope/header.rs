//! The header of a message: everything before the frames, in plain text.

use std::io::{self, Read};

use data_encoding::HEXLOWER;

use super::context::{EncryptionContext, MAX_CONTEXT};
use super::error::MessageError;
use super::suite::{MessageId, SUITE, TAG_LEN};

/// How a message of this format starts: version 2, suite 0x0478.
pub const MESSAGE_START: [u8; 3] = [VERSION, SUITE[0], SUITE[1]];
/// Maximum number of wrapped data keys.
pub const MAX_WRAPPED_KEYS: usize = 16;
/// Maximum length of a header, in bytes.
pub const MAX_HEADER: usize = 64 * 1024;
/// Maximum length of a frame's text, in bytes.
pub const MAX_FRAME: u32 = 16 * 1024 * 1024;

const VERSION: u8 = 2;
/// Content type of a message with frames.
const FRAMED: u8 = 2;
/// The key commitment's length.
const COMMITMENT_LEN: usize = 32;

/// A data key, encrypted by one key of a key service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The key service, such as `huawei-kms`.
    pub provider: String,
    /// What the key service needs to find its key; for `huawei-kms` the text `REGION/KEY-ID`.
    pub info: Vec<u8>,
    /// The encrypted data key.
    pub ciphertext: Vec<u8>,
}

/// A header. One that was read is not authenticated before [`super::OpenMessage::unlock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Identifies the message.
    pub message_id: MessageId,
    /// The encryption context.
    pub context: EncryptionContext,
    /// The wrapped data keys, in the order of the header.
    pub keys: Vec<WrappedKey>,
    /// Length of the text of all frames but the last, in bytes.
    pub frame_length: u32,
    /// Proves to who has the data key that it is the only one that opens the message.
    pub commitment: [u8; COMMITMENT_LEN],
    /// The bytes that the tag authenticates: all of the above as read or written.
    body: Vec<u8>,
    tag: [u8; TAG_LEN],
}

impl Header {
    /// Serializes a header. `tag` computes the tag of the serialized fields.
    pub(super) fn build(
        message_id: MessageId,
        context: EncryptionContext,
        keys: Vec<WrappedKey>,
        frame_length: u32,
        commitment: [u8; COMMITMENT_LEN],
        tag: impl FnOnce(&[u8]) -> Result<[u8; TAG_LEN], MessageError>,
    ) -> Result<Self, MessageError> {
        if !(1..=MAX_WRAPPED_KEYS).contains(&keys.len()) {
            return Err(key_count(keys.len()));
        }
        check_frame_length(frame_length)?;
        let mut body = MESSAGE_START.to_vec();
        body.extend_from_slice(&message_id);
        put(&mut body, "encryption context", &context.to_bytes())?;
        let count = u16::try_from(keys.len()).map_err(|_| key_count(keys.len()))?;
        body.extend_from_slice(&count.to_be_bytes());
        for key in &keys {
            put(&mut body, "key provider", key.provider.as_bytes())?;
            put(&mut body, "key information", &key.info)?;
            put(&mut body, "wrapped key", &key.ciphertext)?;
        }
        body.push(FRAMED);
        body.extend_from_slice(&frame_length.to_be_bytes());
        body.extend_from_slice(&commitment);
        if body.len() > MAX_HEADER - TAG_LEN {
            return Err(too_long());
        }
        let tag = tag(&body)?;
        Ok(Self {
            message_id,
            context,
            keys,
            frame_length,
            commitment,
            body,
            tag,
        })
    }

    /// Reads a header. Every limit is checked before what exceeds it is read or allocated.
    ///
    /// # Errors
    /// If the input is no message, uses what is not supported, or exceeds a limit.
    pub fn read(input: &mut impl Read) -> Result<Self, MessageError> {
        let mut reader = HeaderReader {
            input,
            body: Vec::new(),
        };
        reader.start()?;
        let message_id = *reader.array()?;
        let context = usize::from(reader.u16()?);
        if context > MAX_CONTEXT {
            return Err(invalid(
                "encryption context",
                format!("{context} bytes (limit {MAX_CONTEXT})"),
            ));
        }
        let context = EncryptionContext::parse(reader.bytes(context)?)?;
        let count = usize::from(reader.u16()?);
        if !(1..=MAX_WRAPPED_KEYS).contains(&count) {
            return Err(key_count(count));
        }
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let provider = std::str::from_utf8(reader.with_length()?)
                .map_err(|_| invalid("key provider", "not UTF-8 text".to_owned()))?
                .to_owned();
            let info = reader.with_length()?.to_vec();
            let ciphertext = reader.with_length()?.to_vec();
            keys.push(WrappedKey {
                provider,
                info,
                ciphertext,
            });
        }
        match *reader.array()? {
            [FRAMED] => {}
            [1] => {
                return Err(MessageError::Unsupported {
                    what: "a message without frames".to_owned(),
                });
            }
            [other] => {
                return Err(invalid(
                    "content type",
                    format!("{other}, expected {FRAMED}"),
                ));
            }
        }
        let frame_length = u32::from_be_bytes(*reader.array()?);
        check_frame_length(frame_length)?;
        let commitment = *reader.array()?;
        let body_length = reader.body.len();
        let tag = *reader.array()?;
        let mut body = reader.body;
        body.truncate(body_length);
        Ok(Self {
            message_id,
            context,
            keys,
            frame_length,
            commitment,
            body,
            tag,
        })
    }

    /// The bytes that the tag authenticates.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The tag of [`Self::body`].
    pub(super) fn tag(&self) -> &[u8; TAG_LEN] {
        &self.tag
    }

    /// Length of the whole header in bytes: where the first frame begins.
    pub fn length(&self) -> usize {
        self.body.len() + TAG_LEN
    }

    /// The header as it stands before the frames.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.body.as_slice(), &self.tag].concat()
    }
}

/// Reads a header's fields and keeps their bytes.
struct HeaderReader<'a, R> {
    input: &'a mut R,
    body: Vec<u8>,
}

impl<R: Read> HeaderReader<'_, R> {
    /// Reads the version and the suite.
    fn start(&mut self) -> Result<(), MessageError> {
        let mut start = [0; MESSAGE_START.len()];
        let mut length = 0;
        while length < start.len() {
            match self.input.read(&mut start[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(MessageError::Read(error)),
            }
        }
        let start = &start[..length];
        self.body.extend_from_slice(start);
        let unsupported = |what: &str| MessageError::Unsupported {
            what: what.to_owned(),
        };
        match start {
            _ if *start == MESSAGE_START => Ok(()),
            [VERSION, 0x05, 0x78] => Err(unsupported("suite 0x0578, with a signature,")),
            // Version 1 of the format, whose type is 0x80.
            [1, 0x80, _] => Err(unsupported("format version 1, without key commitment,")),
            [] => Err(MessageError::NotAMessage {
                found: "nothing: it is empty".to_owned(),
            }),
            _ => Err(MessageError::NotAMessage {
                found: start
                    .iter()
                    .map(|byte| HEXLOWER.encode(&[*byte]))
                    .collect::<Vec<_>>()
                    .join(" "),
            }),
        }
    }

    /// Reads `length` bytes.
    fn bytes(&mut self, length: usize) -> Result<&[u8], MessageError> {
        let start = self.body.len();
        if start + length > MAX_HEADER {
            return Err(too_long());
        }
        self.body.resize(start + length, 0);
        self.input
            .read_exact(&mut self.body[start..])
            .map_err(|error| cut_or_failed(error, || "the header".to_owned()))?;
        Ok(&self.body[start..])
    }

    fn array<const N: usize>(&mut self) -> Result<&[u8; N], MessageError> {
        let bytes = self.bytes(N)?;
        bytes.first_chunk().ok_or_else(too_long)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_be_bytes(*self.array()?))
    }

    /// Reads bytes that have their length in two bytes before them.
    fn with_length(&mut self) -> Result<&[u8], MessageError> {
        let length = usize::from(self.u16()?);
        self.bytes(length)
    }
}

/// An error of `read_exact`: the end of the input, or a failure.
pub(super) fn cut_or_failed(error: io::Error, place: impl FnOnce() -> String) -> MessageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => MessageError::Cut { place: place() },
        _ => MessageError::Read(error),
    }
}

/// Appends bytes with their length in two bytes before them.
fn put(body: &mut Vec<u8>, field: &'static str, bytes: &[u8]) -> Result<(), MessageError> {
    let length = u16::try_from(bytes.len())
        .map_err(|_| invalid(field, format!("{} bytes (limit {})", bytes.len(), u16::MAX)))?;
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(bytes);
    Ok(())
}

fn check_frame_length(length: u32) -> Result<(), MessageError> {
    if (1..=MAX_FRAME).contains(&length) {
        return Ok(());
    }
    let reason = format!("{length} bytes, expected 1 to {MAX_FRAME}");
    Err(invalid("frame length", reason))
}

fn key_count(count: usize) -> MessageError {
    let reason = format!("{count}, expected 1 to {MAX_WRAPPED_KEYS}");
    invalid("number of wrapped keys", reason)
}

fn too_long() -> MessageError {
    invalid("header", format!("longer than {MAX_HEADER} bytes"))
}

fn invalid(field: &'static str, reason: String) -> MessageError {
    MessageError::Header { field, reason }
}
