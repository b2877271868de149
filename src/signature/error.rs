//! Why a signature does not hold, or cannot be checked.

use std::io;

use super::key_kind::PublicKeyKind;
use crate::cloud::SigningAlgorithm;

/// Why a signature does not hold, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The file is not the signed one.
    #[error("the file was changed: its digest is {found}, and the signature is for {signed}")]
    FileChanged {
        /// Digest of the file, in hex.
        found: String,
        /// Digest in the signature file, in hex.
        signed: String,
    },
    /// The signature is not one of this key.
    #[error(
        "the signature is not one of this public key for this file and {algorithm}: the signature was changed, \
         or another key or algorithm made it{}",
        if is_pss(*algorithm) {
            "; a PSS signature whose salt is not as long as its digest can be verified only by KMS"
        } else {
            ""
        }
    )]
    Mismatch {
        /// The algorithm.
        algorithm: SigningAlgorithm,
    },
    /// The key is of another kind than the algorithm.
    #[error(
        "the signature was made with {algorithm}, but the public key is {kind}: it is another key's"
    )]
    OtherKind {
        /// The algorithm.
        algorithm: SigningAlgorithm,
        /// The key's kind.
        kind: PublicKeyKind,
    },
    /// Only KMS can verify it.
    #[error("{0} cannot be verified offline with this key; verify with KMS")]
    OnlyKms(SigningAlgorithm),
    /// The digest cannot be made here.
    #[error("{0} needs an SM3 digest, which is not supported")]
    Sm3(SigningAlgorithm),
    /// The file is too large for memory.
    #[error("the file has more than {} MiB, the most that is verified offline; verify with KMS", .0 >> 20)]
    TooLarge(u64),
    /// The signature file is not valid.
    #[error("invalid signature file: {0}")]
    SignatureFile(String),
    /// The public key is not valid.
    #[error("invalid public key: {0}")]
    PublicKey(&'static str),
    /// Reading the file failed.
    #[error("cannot read the file: {0}")]
    Read(#[source] io::Error),
}

fn is_pss(algorithm: SigningAlgorithm) -> bool {
    use SigningAlgorithm::{RsaPssSha256, RsaPssSha384, RsaPssSha512};
    matches!(algorithm, RsaPssSha256 | RsaPssSha384 | RsaPssSha512)
}
