//! The encryption context: a map that is stored in the clear and authenticated.

use super::error::SdkError;
use super::java;

/// Largest context in bytes: the SDK stores its length as a signed 16-bit number.
const MAX_CONTEXT: usize = i16::MAX as usize;

/// An encryption context: its entries in the message's order, and the bytes that are authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SdkContext {
    entries: Vec<(String, String)>,
    bytes: Vec<u8>,
}

impl SdkContext {
    /// A context in the order in which the SDK serializes it: by value in UTF-16 order, then as a `HashMap`
    /// iterates. The SDK rebuilds the context when it decrypts, so it opens no other order.
    pub fn new(entries: impl IntoIterator<Item = (String, String)>) -> Result<Self, SdkError> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        let count = entries.len();
        // The last key makes the bytes the same for any order of the input.
        entries.sort_by(|(key_a, a), (key_b, b)| {
            let places = || {
                let place = |key| java::iteration_place(key, count);
                place(key_a).cmp(&place(key_b))
            };
            java::compare(a, b)
                .then_with(places)
                .then_with(|| key_a.cmp(key_b))
        });
        let has_ties = entries.windows(2).any(|pair| pair[0].1 == pair[1].1);
        if has_ties && !java::keeps_lists(entries.iter().map(|(key, _)| key.as_str())) {
            return Err(SdkError::Context(
                "several keys have the same value, and too many keys have the same hash in Java; the \
                 official SDK could not open the message: use fewer keys or different values"
                    .to_owned(),
            ));
        }
        let mut bytes = Vec::new();
        if count > 0 {
            bytes.extend(length(count, "the number of entries")?);
        }
        for (key, value) in &entries {
            for text in [key, value] {
                bytes.extend(length(text.len(), "a key or value")?);
                bytes.extend(text.as_bytes());
            }
        }
        length(bytes.len(), "the whole")?;
        let context = Self { entries, bytes };
        match context.duplicate() {
            Some(key) => Err(SdkError::Context(format!("the key {key:?} is there twice"))),
            None => Ok(context),
        }
    }

    /// The context of a header, in the order that it has there.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, SdkError> {
        let invalid = |problem: &str| SdkError::header("encryption context", problem);
        let mut rest = bytes.as_slice();
        let mut entries = Vec::new();
        if !rest.is_empty() {
            let too_short = || invalid("it is shorter than its entries");
            let count = take_length(&mut rest).ok_or_else(too_short)?;
            if count == 0 {
                return Err(invalid("it has a length but no entries"));
            }
            for _ in 0..count {
                let mut text = || {
                    let length = take_length(&mut rest)?;
                    rest.split_off(..length)
                };
                let (key, value) = text().zip(text()).ok_or_else(too_short)?;
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
                let texts = text(key).and_then(|key| Ok((key, text(value)?)));
                entries.push(texts.map_err(|_| invalid("a key or value is not UTF-8"))?);
            }
            if !rest.is_empty() {
                return Err(invalid("it is longer than its entries"));
            }
        }
        let context = Self { entries, bytes };
        match context.duplicate() {
            Some(_) => Err(invalid("a key is there twice")),
            None => Ok(context),
        }
    }

    /// A key that occurs twice.
    fn duplicate(&self) -> Option<&str> {
        let mut keys: Vec<&str> = self.entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        let twice = keys.windows(2).find(|pair| pair[0] == pair[1]);
        twice.map(|pair| pair[0])
    }

    /// The entries, in the message's order.
    pub fn entries(&self) -> &[(String, String)] {
        &self.entries
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|(name, _)| name == key);
        entry.map(|(_, value)| value.as_str())
    }

    /// The bytes in the header: the AAD of every ciphertext, and of a locally wrapped data key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A length as the SDK writes it.
fn length(length: usize, what: &str) -> Result<[u8; 2], SdkError> {
    let short = i16::try_from(length).map_err(|_| {
        SdkError::Context(format!(
            "{what} has {length}, more than the format's {MAX_CONTEXT}"
        ))
    });
    Ok(short?.to_be_bytes())
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(i16::from_be_bytes(*bytes)).ok()
}
