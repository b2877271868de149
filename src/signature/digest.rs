//! The digest of a file that KMS signs.

use std::io::{ErrorKind, Read};

use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};

use super::error::SignatureError;
use crate::cloud::SigningAlgorithm;

const BUFFER: usize = 64 * 1024;

/// The hash of a signing algorithm; `None` for SM3.
pub(super) fn hash(algorithm: SigningAlgorithm) -> Option<&'static Algorithm> {
    match (algorithm, algorithm.digest_len()) {
        (SigningAlgorithm::Sm2Sm3, _) => None,
        (_, 32) => Some(&SHA256),
        (_, 48) => Some(&SHA384),
        _ => Some(&SHA512),
    }
}

/// The digest of a file, as KMS signs it with `algorithm`. Reads to the end, in 64 KiB of memory.
///
/// # Errors
/// [`SignatureError::Sm3`], and errors of reading.
pub fn file_digest(
    algorithm: SigningAlgorithm,
    mut file: impl Read,
) -> Result<Vec<u8>, SignatureError> {
    let hash = hash(algorithm).ok_or(SignatureError::Sm3(algorithm))?;
    let mut context = Context::new(hash);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(context.finish().as_ref().to_vec()),
            Ok(read) => context.update(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SignatureError::Read(error)),
        }
    }
}
