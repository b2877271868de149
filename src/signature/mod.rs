//! Detached signatures of files, made by KMS.
//!
//! KMS signs the digest of a file, so a file may have any size: [`file_digest`] reads it as a stream. The
//! signature is kept beside the file as JSON ([`DetachedSignature`]). It is verified by KMS, or offline with
//! the public key ([`verify_offline`]).
//!
//! The signature covers the file's bytes and nothing else: the key and the time in [`DetachedSignature`] are
//! notes, so a verifier must know from elsewhere which key to trust.

mod detached;
mod digest;
mod error;
mod key_kind;
mod offline;
mod public_key;

pub use detached::{DetachedSignature, MAX_SIGNATURE_FILE};
pub use digest::file_digest;
pub use error::SignatureError;
pub use key_kind::PublicKeyKind;
pub use offline::{MAX_OFFLINE, verify_offline};
pub use public_key::PublicKey;
