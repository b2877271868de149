//! Keys that sign requests.

use std::fmt;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// An access key ID with its secret key, and the security token of temporary keys. Zeroized on drop;
/// `Debug` shows none of them.
#[derive(Clone)]
pub struct AccessKeys {
    access_key: Zeroizing<String>,
    secret_key: Zeroizing<String>,
    security_token: Option<Zeroizing<String>>,
    expires_at: Option<Timestamp>,
}

impl AccessKeys {
    /// Wraps keys. An empty token counts as none.
    pub fn new(
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
        security_token: Option<String>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self {
            access_key: Zeroizing::new(access_key.into()),
            secret_key: Zeroizing::new(secret_key.into()),
            security_token: security_token
                .filter(|token| !token.is_empty())
                .map(Zeroizing::new),
            expires_at,
        }
    }

    /// The access key ID, which is public.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key. Never print it.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The token that accompanies requests signed with temporary keys. Never print it.
    pub fn security_token(&self) -> Option<&str> {
        self.security_token.as_ref().map(|token| token.as_str())
    }

    /// When temporary keys expire, if known.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether both are the same keys.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.access_key == other.access_key
            && self.secret_key == other.secret_key
            && self.security_token == other.security_token
    }

    /// SHA-256 of everything that proves the identity: the right access key with a wrong secret key is
    /// somebody else.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        for part in [
            self.access_key(),
            self.secret_key(),
            self.security_token().unwrap_or_default(),
        ] {
            hash.update(&part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        bytes
    }
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeys")
            .field("temporary", &self.security_token.is_some())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
