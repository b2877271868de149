//! The encryption context: pairs of text that are authenticated with a message and not encrypted.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

use super::error::MessageError;

/// Maximum length of a serialized context, in bytes. The format would allow 65,535.
pub const MAX_CONTEXT: usize = 8 * 1024;

/// Prefix of keys that the format reserves.
const RESERVED: &str = "aws-crypto-";

const FIELD: &str = "encryption context";

/// Pairs of key and value, in the order of the keys' UTF-8 bytes, as the format wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    /// A context for a new message.
    ///
    /// # Errors
    /// If a key is empty, occurs twice or is reserved, or the pairs are too long.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, MessageError> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            if key.is_empty() {
                return Err(invalid("a key is empty"));
            }
            if key.starts_with(RESERVED) {
                return Err(invalid(&format!(
                    "the key {key:?} is reserved: choose one that does not start with {RESERVED}"
                )));
            }
            if map.contains_key(&key) {
                return Err(invalid(&format!("the key {key:?} occurs twice")));
            }
            map.insert(key, value);
        }
        let context = Self(map);
        let length: usize = context.0.iter().map(|(k, v)| 4 + k.len() + v.len()).sum();
        if length > MAX_CONTEXT - 2 {
            return Err(invalid(&format!(
                "{} bytes (limit {MAX_CONTEXT})",
                length + 2
            )));
        }
        Ok(context)
    }

    /// Parses a context as it stands in a header, without the length before it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut map = BTreeMap::new();
        if bytes.is_empty() {
            return Ok(Self(map));
        }
        let mut rest = bytes;
        let count = u16::from_be_bytes(*take(&mut rest)?);
        for _ in 0..count {
            let key = text(&mut rest)?;
            let value = text(&mut rest)?;
            if map.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(invalid(&format!("the key {key:?} occurs twice")));
            }
        }
        if count == 0 || !rest.is_empty() {
            return Err(invalid("its length does not match its pairs"));
        }
        Ok(Self(map))
    }

    /// The context as it stands in a header, without the length before it: nothing if it is empty, else the
    /// number of pairs, then keys and values, each with its length in two bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.0.is_empty() {
            return bytes;
        }
        put_length(&mut bytes, self.0.len());
        for text in self.0.iter().flat_map(|(key, value)| [key, value]) {
            put_length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// What binds a wrapped key to the context: Base64 of the SHA-256 of [`Self::to_bytes`], 44 characters.
    /// KMS accepts at most 128 characters of additional authenticated data.
    pub fn binding(&self) -> String {
        data_encoding::BASE64.encode(digest(&SHA256, &self.to_bytes()).as_ref())
    }

    /// The pairs, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that this context, of a message, contains all pairs of another.
    ///
    /// # Errors
    /// Names the first pair that is missing or different.
    pub fn require(&self, expected: &Self) -> Result<(), MessageError> {
        for (key, value) in expected.iter() {
            match self.get(key) {
                Some(found) if found == value => {}
                Some(found) => {
                    return Err(invalid(&format!(
                        "{key:?} is {found:?} in the message, expected {value:?}"
                    )));
                }
                None => return Err(invalid(&format!("{key:?} is not in the message"))),
            }
        }
        Ok(())
    }
}

/// Appends a length below [`MAX_CONTEXT`] in two bytes.
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], MessageError> {
    let (taken, left) = rest
        .split_first_chunk()
        .ok_or_else(|| invalid("a pair is longer than the context"))?;
    *rest = left;
    Ok(taken)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, MessageError> {
    let length = usize::from(u16::from_be_bytes(*take(rest)?));
    let (taken, left) = rest
        .split_at_checked(length)
        .ok_or_else(|| invalid("a pair is longer than the context"))?;
    *rest = left;
    std::str::from_utf8(taken).map_err(|_| invalid("not UTF-8 text"))
}

fn invalid(reason: &str) -> MessageError {
    MessageError::Header {
        field: FIELD,
        reason: reason.to_owned(),
    }
}
