//! Writing a message.

use std::io::{BufReader, BufWriter, Read, Write};

use zeroize::Zeroizing;

use super::algorithm::SdkAlgorithm;
use super::cipher::{Cipher, IV, TAG, random};
use super::context::SdkContext;
use super::declaration::{Declaration, Meter};
use super::error::SdkError;
use super::header::{SdkForm, SdkHeader, read_up_to};
use super::keys::SdkDataKey;

/// Bytes of text in a block of a file message, as the SDK writes them.
pub const BLOCK: usize = 1024;
/// Blocks under one data key: random IVs are safe for 2^32 of them (NIST SP 800-38D, 8.3). 4 TiB of text.
const MAX_BLOCKS: u64 = 1 << 32;
/// Text of a memory message: a Java array.
const MAX_MEMORY_TEXT: usize = i32::MAX as usize - super::header::MAX_HEADER;
const BUFFER: usize = 64 * 1024;
/// IVs that are drawn at once.
const IVS: usize = 64;

/// A new message: header and data key are ready. Writes one message, because each has its own data key.
pub struct SdkSealer {
    header: SdkHeader,
    cipher: Cipher,
}

impl SdkSealer {
    /// Makes the header. The official SDK opens what is written if it has one of the keys that wrapped the
    /// data key.
    pub fn new(
        algorithm: SdkAlgorithm,
        context: SdkContext,
        key: SdkDataKey,
    ) -> Result<Self, SdkError> {
        let cipher = Cipher::new(algorithm, key.dek.expose())?;
        let header = SdkHeader::new(algorithm, context, key.wrapped, &cipher)?;
        Ok(Self { header, cipher })
    }

    /// Writes a memory message.
    pub fn seal(self, text: &[u8]) -> Result<Vec<u8>, SdkError> {
        if text.len() > MAX_MEMORY_TEXT {
            return Err(SdkError::TooLong(
                "a memory message: the official SDK holds at most 2 GiB",
            ));
        }
        let mut message = self.header.serialize(SdkForm::Memory);
        let iv = random::<IV>()?;
        message.reserve(IV + 8 + text.len() + TAG);
        message.extend(iv);
        message.extend((text.len() as u64).to_be_bytes());
        let start = message.len();
        message.extend_from_slice(text);
        let aad = self.header.context().bytes();
        let tag = self
            .cipher
            .seal(iv, aad, &mut message[start..], "a memory message")?;
        message.extend(tag);
        let mut meter = Meter::new();
        meter.update(text);
        self.check_declaration(meter)?;
        Ok(message)
    }

    /// Writes a file message, in blocks of [`BLOCK`] bytes, and returns the number of bytes of text. After an
    /// error, discard what was written.
    pub fn seal_file(self, text: impl Read, message: impl Write) -> Result<u64, SdkError> {
        let mut text = BufReader::with_capacity(BUFFER, text);
        let mut message = BufWriter::with_capacity(BUFFER, message);
        let header = self.header.serialize(SdkForm::File);
        message.write_all(&header).map_err(SdkError::Write)?;
        let is_declared = Declaration::in_context(self.header.context()).is_some();
        let mut meter = is_declared.then(Meter::new);
        let mut length = 0;
        let mut block = Zeroizing::new([0; BLOCK]);
        let mut ivs = [0; IV * IVS];
        for number in 0.. {
            let read = read_up_to(&mut text, &mut block[..])?;
            if read == 0 {
                break;
            }
            if number == MAX_BLOCKS {
                return Err(SdkError::TooLong("a file message: at most 4 TiB"));
            }
            let index = (number % IVS as u64) as usize;
            if index == 0 {
                ivs = random()?;
            }
            let mut iv = [0; IV];
            iv.copy_from_slice(&ivs[index * IV..][..IV]);
            if let Some(meter) = &mut meter {
                meter.update(&block[..read]);
            }
            length += read as u64;
            let aad = self.header.context().bytes();
            let tag = self.cipher.seal(iv, aad, &mut block[..read], "a block")?;
            let head = ((read + TAG) as u64).to_be_bytes();
            for part in [&iv[..], &head, &block[..read], &tag] {
                message.write_all(part).map_err(SdkError::Write)?;
            }
        }
        message.flush().map_err(SdkError::Write)?;
        match meter {
            Some(meter) => self.check_declaration(meter).map(|()| length),
            None => Ok(length),
        }
    }

    /// Notices a text that changed after it was measured.
    fn check_declaration(&self, meter: Meter) -> Result<(), SdkError> {
        let Some(declared) = Declaration::in_context(self.header.context()) else {
            return Ok(());
        };
        let written = meter.finish();
        if written == declared {
            return Ok(());
        }
        Err(SdkError::TextChanged {
            declared_length: declared.length(),
            length: written.length(),
        })
    }
}
