//! The message format of Huawei's own Encryption SDK for Java, in both of its forms.
//!
//! There is no specification. The layout was read from the source of `huaweicloud-encryption-sdk-java` 1.0.21
//! and checked against messages which that SDK wrote. All integers are big-endian.
//!
//! # Header
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version: 1 |
//! | 2 | algorithm: 1 AES-128-GCM, 2 AES-256-GCM (3 and 4 are SM4, which this program refuses) |
//! | 2 | length of the context; 0 if there is none |
//! | … | context: u16 count, then for each entry u16 length, key, u16 length, value ([`SdkContext`]) |
//! | 1 | number of wrapped data keys, at most 127 |
//! | … | for each: u8 length, provider, u8 length, info, u16 length, wrapped key ([`WrappedDek`]) |
//! | 1 | content type: 1 |
//! | 1 | length of the IV: 12 |
//! | 2 | length of the header tag: 28 |
//! | 28 | header tag: IV, then the GCM tag of an empty text; everything before the tag's length is its AAD |
//!
//! # Body
//!
//! - [`SdkForm::Memory`]: header, IV, u64 length of the ciphertext without its tag, ciphertext, tag.
//! - [`SdkForm::File`]: u16 length of the header, header, blocks up to the end of the file. A block is an IV, u64
//!   length of the ciphertext **with** its tag, ciphertext, tag. The SDK puts into a block what one read of at
//!   most 1,024 bytes returned, so blocks may have any size.
//!
//! The AAD of every ciphertext is the context's bytes, and nothing else.
//!
//! # What the format does not protect
//!
//! - Nothing marks the last block or counts them: blocks that were removed or moved cannot be seen, nor an
//!   end cut off at a border between blocks.
//! - A block is also a valid body of the memory form, so a memory message may be a piece of a file.
//! - KMS does not see the context, so it is not bound to the wrapped key. No key commitment.
//! - The SDK reads a file without checking its header, ignores bytes after a memory message, and calls an
//!   endpoint that a stranger wrote into the message.
//!
//! [`SdkReader`] checks the header's tag in both forms, refuses trailing bytes and repeated blocks, and never
//! uses an endpoint. [`Declaration`] puts the text's length and digest into the context: the SDK still opens
//! such a message, and [`SdkReader`] then notices any change. [`SdkReport::warnings`] says what was left unprotected.
//!
//! # Use
//!
//! [`SdkReader::read`] parses a header without any key, [`DataKeys::unwrap`] finds the data key, and
//! [`SdkReader::open`] writes the text. [`DataKeys::wrap`] makes a data key, and [`SdkSealer`] writes a message.
//! Readers and writers block: run them on a blocking thread. They buffer by themselves.

mod algorithm;
mod cipher;
mod context;
mod declaration;
mod error;
mod header;
mod java;
mod keys;
mod kms_keys;
mod open;
mod report;
mod seal;
mod wrapped;

pub use algorithm::SdkAlgorithm;
pub use context::SdkContext;
pub use declaration::{Declaration, LENGTH_KEY, SHA256_KEY};
pub use error::SdkError;
pub use header::{MAX_HEADER, SdkForm, SdkHeader};
pub use keys::{DataKeys, KeyError, LocalKeys, SdkDataKey};
pub use kms_keys::{SdkKmsKey, SdkKmsKeys};
pub use open::{OpenLimits, SdkReader};
pub use report::SdkReport;
pub use seal::{BLOCK, SdkSealer};
pub use wrapped::{Discovery, KMS_PROVIDER, LOCAL_PROVIDER, SdkKeyInfo, WrappedDek};
