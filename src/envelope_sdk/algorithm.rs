//! The algorithms of the format.

use std::fmt;

/// How a message is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdkAlgorithm {
    /// AES-128-GCM: id 1.
    Aes128Gcm,
    /// AES-256-GCM: id 2.
    Aes256Gcm,
}

impl SdkAlgorithm {
    /// Length of a data key in bytes.
    pub fn key_length(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// The id in the header.
    pub fn id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 1,
            Self::Aes256Gcm => 2,
        }
    }
}

impl fmt::Display for SdkAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
        })
    }
}
