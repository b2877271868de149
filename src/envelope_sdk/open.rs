//! Reading a message.

use std::collections::HashSet;
use std::io::{BufReader, BufWriter, Read, Write};

use zeroize::Zeroizing;

use super::cipher::{Cipher, IV, TAG};
use super::declaration::{Declaration, Meter};
use super::error::SdkError;
use super::header::{SdkForm, SdkHeader, read_up_to};
use super::report::SdkReport;
use super::wrapped::SdkKeyInfo;
use crate::util::secret_bytes::SecretBytes;

/// Blocks whose IVs are remembered to notice copies: about 450 MiB of text in 7 MiB of memory.
const TRACKED_BLOCKS: usize = (1 << 19) / 8 * 7;
const BUFFER: usize = 64 * 1024;

/// How much text is held in memory before its tag is checked.
#[derive(Clone, Copy, Debug)]
pub struct OpenLimits {
    /// Bytes of text of a memory message.
    pub memory_text: u64,
    /// Bytes of text of a block in a file message. The SDK writes at most 1,024.
    pub block: u64,
}

impl Default for OpenLimits {
    /// 256 MiB for a memory message and 16 MiB for a block.
    fn default() -> Self {
        Self {
            memory_text: 256 << 20,
            block: 16 << 20,
        }
    }
}

/// A message whose header was read.
#[derive(Debug)]
pub struct SdkReader<R: Read> {
    form: SdkForm,
    header: SdkHeader,
    body: BufReader<R>,
}

impl<R: Read> SdkReader<R> {
    /// Reads the header of either form. Needs no key.
    pub fn read(message: R) -> Result<Self, SdkError> {
        let mut body = BufReader::with_capacity(BUFFER, message);
        let (form, header) = SdkHeader::read(&mut body)?;
        Ok(Self { form, header, body })
    }

    /// The message's form.
    pub fn form(&self) -> SdkForm {
        self.form
    }

    /// The header. Not authenticated.
    pub fn header(&self) -> &SdkHeader {
        &self.header
    }

    /// Checks the header with the message's data key, decrypts the body, and writes the text.
    ///
    /// A file message's blocks are written one by one as they are authenticated: after an error, discard what
    /// was written. Of a memory message nothing is written before all of it is authenticated.
    pub fn open(
        self,
        dek: &SecretBytes,
        limits: OpenLimits,
        text: impl Write,
    ) -> Result<SdkReport, SdkError> {
        let cipher = Cipher::new(self.header.algorithm(), dek.expose())?;
        self.header.verify(&cipher)?;
        let mut text = BufWriter::with_capacity(BUFFER, text);
        let declared = Declaration::in_context(self.header.context());
        let mut body = SealedBody {
            cipher,
            aad: self.header.context().bytes(),
            input: self.body,
            buffer: Zeroizing::default(),
            meter: declared.as_ref().map(|_| Meter::new()),
        };
        let mut report = SdkReport {
            form: self.form,
            algorithm: self.header.algorithm(),
            blocks: 0,
            text_bytes: 0,
            is_declared: declared.is_some(),
            short_block: None,
            copies_unchecked: false,
            endpoints: endpoints(&self.header),
        };
        match self.form {
            SdkForm::Memory => {
                body.open_memory(limits.memory_text, &mut report)?;
                body.check_declaration(declared, &report)?;
                let text = text.write_all(&body.buffer);
                text.map_err(SdkError::Write)?;
            }
            SdkForm::File => {
                body.open_blocks(limits.block, &mut text, &mut report)?;
                body.check_declaration(declared, &report)?;
            }
        }
        text.flush().map_err(SdkError::Write)?;
        Ok(report)
    }
}

/// The endpoints that a header names.
fn endpoints(header: &SdkHeader) -> Vec<String> {
    let infos = header.wrapped().iter().map(|key| &key.info);
    let endpoints = infos.filter_map(|info| match info {
        SdkKeyInfo::Discovery(discovery) => Some(discovery.endpoint.clone()),
        SdkKeyInfo::Unnamed => None,
    });
    let mut endpoints: Vec<_> = endpoints.filter(|text| !text.is_empty()).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}

/// What follows the header.
struct SealedBody<'a, R> {
    cipher: Cipher,
    aad: &'a [u8],
    input: R,
    /// The text of the current block.
    buffer: Zeroizing<Vec<u8>>,
    /// Measures the text if the context declares it.
    meter: Option<Meter>,
}

impl<R: Read> SealedBody<'_, R> {
    /// IV and length of the next block; `None` at the end of the input.
    fn block_head(&mut self) -> Result<Option<([u8; IV], u64)>, SdkError> {
        let mut head = [0; IV + 8];
        match read_up_to(&mut self.input, &mut head)? {
            0 => return Ok(None),
            read if read < head.len() => return Err(SdkError::Truncated("the head of a block")),
            _ => {}
        }
        let mut iv = [0; IV];
        iv.copy_from_slice(&head[..IV]);
        let length = head[IV..].iter();
        let length = length.fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        Ok(Some((iv, length)))
    }

    /// Decrypts `length` bytes of ciphertext and tag into the buffer. Memory grows with what arrives, whatever
    /// the message says.
    fn open_block(&mut self, number: u64, iv: [u8; IV], length: u64) -> Result<(), SdkError> {
        self.buffer.clear();
        let mut block = (&mut self.input).take(length);
        let read = block.read_to_end(&mut self.buffer);
        if (read.map_err(SdkError::Read)? as u64) < length {
            return Err(SdkError::Truncated("a block"));
        }
        let opened = self.cipher.open(iv, self.aad, &mut self.buffer);
        let text = opened.ok_or(SdkError::BlockTag(number))?.len();
        self.buffer.truncate(text);
        if let Some(meter) = &mut self.meter {
            meter.update(&self.buffer);
        }
        Ok(())
    }

    fn open_memory(&mut self, limit: u64, report: &mut SdkReport) -> Result<(), SdkError> {
        let head = self.block_head()?;
        let (iv, length) = head.ok_or(SdkError::Truncated("the body"))?;
        if length > limit {
            return Err(SdkError::BlockLength {
                block: 1,
                length: length.saturating_add(TAG as u64),
                limit: limit + TAG as u64,
            });
        }
        self.open_block(1, iv, length + TAG as u64)?;
        if read_up_to(&mut self.input, &mut [0])? > 0 {
            return Err(SdkError::TrailingBytes);
        }
        report.blocks = 1;
        report.text_bytes = length;
        Ok(())
    }

    fn open_blocks(
        &mut self,
        limit: u64,
        text: &mut impl Write,
        report: &mut SdkReport,
    ) -> Result<(), SdkError> {
        let limit = limit.saturating_add(TAG as u64);
        let mut seen = HashSet::new();
        let mut last = u64::MAX;
        while let Some((iv, length)) = self.block_head()? {
            let block = report.blocks + 1;
            if length < TAG as u64 || length > limit {
                return Err(SdkError::BlockLength {
                    block,
                    length,
                    limit,
                });
            }
            self.open_block(block, iv, length)?;
            if seen.contains(&iv) {
                return Err(SdkError::RepeatedBlock(block));
            }
            if seen.len() < TRACKED_BLOCKS {
                seen.insert(iv);
            } else {
                report.copies_unchecked = true;
            }
            text.write_all(&self.buffer).map_err(SdkError::Write)?;
            if last < length && report.short_block.is_none() {
                report.short_block = Some(report.blocks);
            }
            last = length;
            report.blocks = block;
            report.text_bytes += self.buffer.len() as u64;
        }
        Ok(())
    }

    fn check_declaration(
        &mut self,
        declared: Option<Declaration>,
        report: &SdkReport,
    ) -> Result<(), SdkError> {
        let Some((declared, meter)) = declared.zip(self.meter.take()) else {
            return Ok(());
        };
        if meter.finish() == declared {
            return Ok(());
        }
        Err(SdkError::Declaration {
            declared_length: declared.length(),
            length: report.text_bytes,
        })
    }
}
