//! The one type that holds the bytes of secrets.

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes of a secret: wiped from memory when the last clone is dropped, shown by `Debug` only as a length,
/// and not serializable.
///
/// Clones share the bytes. [`SecretBytes::into_bytes`] hands them to gRPC without a copy; what
/// tonic then writes to its send buffer is not wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Bytes);

/// The owner of the shared bytes, which wipes them on drop.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl SecretBytes {
    /// Takes ownership of the bytes without a copy; the vector's memory is wiped on the last drop.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Bytes::from_owner(Wiped(Zeroizing::new(bytes))))
    }

    /// The bytes themselves. Do not put them into anything that is printed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as UTF-8 text, or `None` if they are not text.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The shared bytes for a gRPC message, still wiped when the last holder drops them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes(<{} bytes>)", self.0.len())
    }
}
