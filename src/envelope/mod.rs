//! Envelope encryption of files of any size: messages in the AWS Encryption SDK message format, version 2,
//! algorithm suite 0x0478 (AES-256-GCM, HKDF-SHA-512, key commitment, frames, no signature).
//!
//! The format is described in docs/src/file-encryption.md, from
//! <https://docs.aws.amazon.com/encryption-sdk/latest/developer-guide/message-format.html>.
//!
//! A message is written in two steps: a [`KeyProvider`] generates a data key and wraps it with one or more
//! keys; [`encrypt()`] then writes the header and the frames. It is read in three: [`Header::read`] parses what
//! nobody has authenticated yet, [`KeyProvider::unwrap`] gets the data key back, and [`OpenMessage::unlock`]
//! checks the header with it; the frames are then read by [`OpenMessage::decrypt`] or
//! [`OpenMessage::decrypt_range`].
//!
//! [`Destination`] keeps decrypted text from its place until all of it is authenticated. Nothing here knows
//! HTTP, Kubernetes or the command line, and only [`KmsKeys`] knows the cloud.

mod context;
mod decrypt;
mod destination;
mod encrypt;
mod error;
mod frame;
mod header;
mod inspect;
mod keys;
mod kms_keys;
mod pipeline;
mod suite;

pub use context::{EncryptionContext, MAX_CONTEXT};
pub use decrypt::OpenMessage;
pub use destination::Destination;
pub use encrypt::{DEFAULT_FRAME, NewMessage, encrypt};
pub use error::{KeyError, MessageError};
pub use header::{Header, MAX_FRAME, MAX_HEADER, MAX_WRAPPED_KEYS, MESSAGE_START, WrappedKey};
pub use inspect::{FrameSummary, inspect_frames};
pub use keys::KeyProvider;
pub use kms_keys::{KeyFailure, KmsKey, KmsKeys, NewDataKey};
pub use suite::{DATA_KEY_LEN, MessageId};
