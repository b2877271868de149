//! The header of both forms.

use std::io::{self, Read};

use super::algorithm::SdkAlgorithm;
use super::cipher::{Cipher, IV, TAG, random};
use super::context::SdkContext;
use super::error::SdkError;
use super::wrapped::{SdkKeyInfo, WrappedDek};
use crate::util::secret_bytes::SecretBytes;

/// Largest header that is read, in bytes.
pub const MAX_HEADER: usize = 64 * 1024;
/// Largest header that the SDK can read from a file: it takes the length for a signed number.
const MAX_SDK_FILE_HEADER: usize = i16::MAX as usize;

const VERSION: u8 = 1;
const CONTENT_TYPE: u8 = 1;
const HEADER_TAG: usize = IV + TAG;
/// Bytes that tell the two forms apart.
pub(super) const PREFIX: usize = 5;

/// The two forms of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdkForm {
    /// One ciphertext: `HuaweiCrypto.encrypt(EncryptRequest)`.
    Memory,
    /// Blocks: `HuaweiCrypto.encrypt(InputStream, OutputStream, …)`.
    File,
}

impl SdkForm {
    /// The form of a message that begins with `prefix`, or `None` if it is none.
    ///
    /// A memory message begins with the version and the algorithm: 01 00 0a. So does a file message whose
    /// header has 256 bytes: 01 00 01. The next two bytes are the length of the context in the former,
    /// and no context has 1 to 5 bytes; and the algorithm in the latter, which is 1 to 4.
    pub(super) fn of(prefix: [u8; PREFIX]) -> Option<Self> {
        match prefix {
            [1, 0, VERSION, 0, 1..=4] => Some(Self::File),
            [VERSION, 0, ..] => Some(Self::Memory),
            [_, _, VERSION, ..] => Some(Self::File),
            _ => None,
        }
    }
}

/// The header of a message. Not authenticated before its tag is checked with the data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdkHeader {
    algorithm: SdkAlgorithm,
    context: SdkContext,
    wrapped: Vec<WrappedDek>,
    /// The bytes that the tag authenticates.
    authenticated: Vec<u8>,
    tag_iv: [u8; IV],
    tag: [u8; TAG],
}

impl SdkHeader {
    /// How the message is encrypted.
    pub fn algorithm(&self) -> SdkAlgorithm {
        self.algorithm
    }

    /// The encryption context.
    pub fn context(&self) -> &SdkContext {
        &self.context
    }

    /// The wrapped data keys, in the order in which regions answered the writer.
    pub fn wrapped(&self) -> &[WrappedDek] {
        &self.wrapped
    }

    /// Length in bytes with the tag, and without the length that precedes the header in a file.
    pub fn length(&self) -> usize {
        self.authenticated.len() + 2 + HEADER_TAG
    }

    /// Whether this is the message's data key: the header's tag matches.
    pub fn is_key(&self, dek: &SecretBytes) -> bool {
        let cipher = Cipher::new(self.algorithm, dek.expose());
        cipher.is_ok_and(|cipher| self.verify(&cipher).is_ok())
    }

    /// Makes a header and its tag.
    pub(super) fn new(
        algorithm: SdkAlgorithm,
        context: SdkContext,
        wrapped: Vec<WrappedDek>,
        cipher: &Cipher,
    ) -> Result<Self, SdkError> {
        let too_long = |field| move |_| SdkError::header(field, "it is too long");
        let mut bytes = vec![VERSION];
        bytes.extend(algorithm.id().to_be_bytes());
        let length = i16::try_from(context.bytes().len());
        bytes.extend(
            length
                .map_err(too_long("encryption context"))?
                .to_be_bytes(),
        );
        bytes.extend(context.bytes());
        let count = i8::try_from(wrapped.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| {
            SdkError::header("number of wrapped keys", "a message has 1 to 127 of them")
        });
        bytes.extend(count?.to_be_bytes());
        for key in &wrapped {
            let info = key.info.serialize()?;
            for (field, text) in [
                ("provider", key.provider.as_bytes()),
                ("key information", &info),
            ] {
                let length = i8::try_from(text.len()).map_err(too_long(field))?;
                bytes.extend(length.to_be_bytes());
                bytes.extend(text);
            }
            let length = i16::try_from(key.wrapped.len()).map_err(too_long("wrapped key"))?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(&key.wrapped);
        }
        bytes.extend([CONTENT_TYPE, IV as u8]);
        if bytes.len() + 2 + HEADER_TAG > MAX_SDK_FILE_HEADER {
            return Err(SdkError::header(
                "length",
                format!(
                    "{} bytes, more than the {MAX_SDK_FILE_HEADER} that the official SDK can read; shorten the \
                     context or use fewer keys",
                    bytes.len() + 2 + HEADER_TAG
                ),
            ));
        }
        let tag_iv = random()?;
        let tag = cipher.seal(tag_iv, &bytes, &mut [], "a header")?;
        Ok(Self {
            algorithm,
            context,
            wrapped,
            authenticated: bytes,
            tag_iv,
            tag,
        })
    }

    /// The bytes of the header at the beginning of a message.
    pub(super) fn serialize(&self, form: SdkForm) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.length());
        if form == SdkForm::File {
            // `new` keeps it below 32,768.
            bytes.extend((self.length() as u16).to_be_bytes());
        }
        bytes.extend(&self.authenticated);
        bytes.extend((HEADER_TAG as u16).to_be_bytes());
        bytes.extend(self.tag_iv);
        bytes.extend(self.tag);
        bytes
    }

    /// Reads the header of either form, and the form. Reads no byte of the body, and at most [`MAX_HEADER`]
    /// bytes; allocates no more than it has read.
    pub(super) fn read(input: &mut impl Read) -> Result<(SdkForm, Self), SdkError> {
        let mut prefix = [0; PREFIX];
        match read_up_to(input, &mut prefix)? {
            PREFIX => {}
            0 => return Err(SdkError::Truncated("the header (it is empty)")),
            _ => return Err(SdkError::Truncated("the header")),
        }
        let form = SdkForm::of(prefix).ok_or(SdkError::NotAMessage)?;
        let header = match form {
            SdkForm::Memory => {
                Self::parse(&mut HeaderFields::new(prefix.chain(input), MAX_HEADER))?
            }
            SdkForm::File => {
                let length = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
                let header = Self::parse(&mut HeaderFields::new(prefix[2..].chain(input), length))?;
                if header.length() != length {
                    let problem =
                        format!("it says {length} and the header has {}", header.length());
                    return Err(SdkError::header("length", problem));
                }
                header
            }
        };
        Ok((form, header))
    }

    /// Checks what can be checked without a key, in the order of the fields.
    fn parse<R: Read>(fields: &mut HeaderFields<R>) -> Result<Self, SdkError> {
        let [version] = fields.array("the header")?;
        if version != VERSION {
            return Err(SdkError::NotAMessage);
        }
        let algorithm = match u16::from_be_bytes(fields.array("the header")?) {
            1 => SdkAlgorithm::Aes128Gcm,
            2 => SdkAlgorithm::Aes256Gcm,
            3 => return Err(SdkError::Sm4("SM4-GCM")),
            4 => return Err(SdkError::Sm4("SM4-CBC")),
            other => return Err(SdkError::UnknownAlgorithm(other)),
        };
        let length = fields.short("length of the encryption context")?;
        let context = SdkContext::parse(fields.bytes(length, "the encryption context")?)?;
        let count = fields.byte("number of wrapped keys")?;
        if count == 0 {
            return Err(SdkError::header("number of wrapped keys", "it is 0"));
        }
        let mut wrapped = Vec::new();
        for _ in 0..count {
            let length = fields.byte("length of a provider")?;
            let provider = String::from_utf8(fields.bytes(length, "a provider")?);
            let provider = provider.map_err(|_| SdkError::header("provider", "it is not UTF-8"))?;
            let length = fields.byte("length of key information")?;
            let info = SdkKeyInfo::parse(&fields.bytes(length, "key information")?)?;
            let length = fields.short("length of a wrapped key")?;
            let bytes = fields.bytes(length, "a wrapped key")?;
            wrapped.push(WrappedDek {
                provider,
                info,
                wrapped: bytes,
            });
        }
        // The SDK does not look at these three.
        for (field, expected) in [("content type", CONTENT_TYPE), ("IV length", IV as u8)] {
            let [value] = fields.array("the header")?;
            if value != expected {
                let problem = format!("it is {value} instead of {expected}");
                return Err(SdkError::header(field, problem));
            }
        }
        let authenticated = std::mem::take(&mut fields.seen);
        let length = u16::from_be_bytes(fields.array("the header")?);
        if usize::from(length) != HEADER_TAG {
            let problem = format!("it is {length} instead of {HEADER_TAG}");
            return Err(SdkError::header("length of the tag", problem));
        }
        Ok(Self {
            algorithm,
            context,
            wrapped,
            authenticated,
            tag_iv: fields.array("the header's tag")?,
            tag: fields.array("the header's tag")?,
        })
    }

    /// Checks the tag.
    pub(super) fn verify(&self, cipher: &Cipher) -> Result<(), SdkError> {
        let mut tag = self.tag;
        let opened = cipher.open(self.tag_iv, &self.authenticated, &mut tag);
        opened.map(drop).ok_or(SdkError::HeaderTag)
    }
}

/// Reads fields one by one and keeps their bytes.
struct HeaderFields<R> {
    input: R,
    left: usize,
    seen: Vec<u8>,
}

impl<R: Read> HeaderFields<R> {
    fn new(input: R, limit: usize) -> Self {
        Self {
            input,
            left: limit,
            seen: Vec::new(),
        }
    }

    fn fill(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), SdkError> {
        let left = self.left.checked_sub(buffer.len());
        self.left = left.ok_or_else(|| SdkError::header("length", "its fields are longer"))?;
        if read_up_to(&mut self.input, buffer)? < buffer.len() {
            return Err(SdkError::Truncated(what));
        }
        self.seen.extend_from_slice(buffer);
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], SdkError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// At most 32,767 bytes.
    fn bytes(&mut self, length: usize, what: &'static str) -> Result<Vec<u8>, SdkError> {
        if length > self.left {
            return Err(SdkError::header("length", "its fields are longer"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// A signed byte that must not be negative.
    fn byte(&mut self, field: &'static str) -> Result<usize, SdkError> {
        let value = i8::from_be_bytes(self.array("the header")?);
        usize::try_from(value).map_err(|_| SdkError::header(field, "it is negative"))
    }

    /// A signed 16-bit number that must not be negative.
    fn short(&mut self, field: &'static str) -> Result<usize, SdkError> {
        let value = i16::from_be_bytes(self.array("the header")?);
        usize::try_from(value).map_err(|_| SdkError::header(field, "it is negative"))
    }
}

/// Fills `buffer` as far as the input goes.
pub(super) fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, SdkError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SdkError::Read(error)),
        }
    }
    Ok(filled)
}
