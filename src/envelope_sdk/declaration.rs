//! Length and digest of the text, as entries of the context.

use std::io::Read;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::context::SdkContext;
use super::error::SdkError;

/// Key of the context entry with the text's SHA-256: 64 lower-case hexadecimal digits.
pub const SHA256_KEY: &str = "sha256";
/// Key of the context entry with the text's length in bytes: decimal, without leading zeros.
pub const LENGTH_KEY: &str = "length";

/// What a message's context says about its text. The official SDK ignores it.
///
/// The digest is stored in the clear: it confirms a guess of a short or predictable text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    sha256: String,
    length: u64,
}

impl Declaration {
    /// Reads a text to its end.
    pub fn of(mut text: impl Read) -> Result<Self, SdkError> {
        let mut meter = Meter::new();
        let mut buffer = Zeroizing::new(vec![0; 64 * 1024]);
        loop {
            match text.read(&mut buffer) {
                Ok(0) => return Ok(meter.finish()),
                Ok(read) => meter.update(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SdkError::Read(error)),
            }
        }
    }

    /// The declaration in a context, if it has both entries in the form in which this program writes them.
    pub fn in_context(context: &SdkContext) -> Option<Self> {
        let sha256 = context.get(SHA256_KEY)?;
        let text = context.get(LENGTH_KEY)?;
        let length: u64 = text.parse().ok()?;
        let is_digest = sha256.len() == 64 && HEXLOWER.decode(sha256.as_bytes()).is_ok();
        (is_digest && length.to_string() == text).then(|| Self {
            sha256: sha256.to_owned(),
            length,
        })
    }

    /// The context with `entries` and this declaration.
    pub fn add_to(
        &self,
        entries: impl IntoIterator<Item = (String, String)>,
    ) -> Result<SdkContext, SdkError> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        for key in [SHA256_KEY, LENGTH_KEY] {
            if entries.iter().any(|(name, _)| name == key) {
                return Err(SdkError::Context(format!(
                    "the key {key:?} is set by this program; choose another name"
                )));
            }
        }
        entries.push((SHA256_KEY.to_owned(), self.sha256.clone()));
        entries.push((LENGTH_KEY.to_owned(), self.length.to_string()));
        SdkContext::new(entries)
    }

    /// Bytes of text.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Measures a text while it passes.
pub(super) struct Meter {
    digest: Context,
    length: u64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            digest: Context::new(&SHA256),
            length: 0,
        }
    }

    pub(super) fn update(&mut self, text: &[u8]) {
        self.digest.update(text);
        self.length += text.len() as u64;
    }

    pub(super) fn finish(self) -> Declaration {
        Declaration {
            sha256: HEXLOWER.encode(self.digest.finish().as_ref()),
            length: self.length,
        }
    }
}
