//! The seam to key services.

use std::future::Future;

use super::context::EncryptionContext;
use super::error::KeyError;
use super::header::WrappedKey;
use crate::util::secret_bytes::SecretBytes;

/// A key service, which makes data keys and wraps and unwraps them.
pub trait KeyProvider {
    /// Makes a data key of [`super::DATA_KEY_LEN`] bytes, for one message, and wraps it with all keys of this provider,
    /// bound to the context.
    fn generate(
        &self,
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<(SecretBytes, Vec<WrappedKey>), KeyError>> + Send;

    /// Unwraps one of the wrapped keys of a message. Neither they nor the context are authenticated yet: a
    /// provider tries only keys that it was told to use, and calls no address from a message.
    fn unwrap(
        &self,
        candidates: &[WrappedKey],
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<SecretBytes, KeyError>> + Send;
}
