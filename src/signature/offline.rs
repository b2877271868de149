//! Verification with the public key alone.

use std::io::Read;

use ring::digest::digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::detached::DetachedSignature;
use super::digest::hash;
use super::error::SignatureError;
use super::key_kind::PublicKeyKind;
use super::public_key::PublicKey;
use crate::cloud::SigningAlgorithm;

/// Largest file that is verified offline, in bytes. `ring` verifies messages, not digests, so the whole file is
/// held in memory.
pub const MAX_OFFLINE: u64 = 256 << 20;

/// Verifies a file's signature with a public key, without any call.
///
/// # Errors
/// [`SignatureError::FileChanged`] if the file is not the signed one; [`SignatureError::Mismatch`] and
/// [`SignatureError::OtherKind`] if signature, key and algorithm do not belong together;
/// [`SignatureError::OnlyKms`] and [`SignatureError::TooLarge`] for what only KMS can verify. A PSS signature is
/// verified only if its salt is as long as its digest.
pub fn verify_offline(
    signature: &DetachedSignature,
    key: &PublicKey,
    file: impl Read,
) -> Result<(), SignatureError> {
    let algorithm = signature.algorithm;
    let verification = verification(algorithm, key.kind())?;
    let hash = hash(algorithm).ok_or(SignatureError::Sm3(algorithm))?;
    let mut text = Vec::new();
    let read = file.take(MAX_OFFLINE + 1).read_to_end(&mut text);
    if read.map_err(SignatureError::Read)? as u64 > MAX_OFFLINE {
        return Err(SignatureError::TooLarge(MAX_OFFLINE));
    }
    signature.check_digest(digest(hash, &text).as_ref())?;
    let key = UnparsedPublicKey::new(verification, key.bytes());
    let verified = key.verify(&text, &signature.signature);
    verified.map_err(|_| SignatureError::Mismatch { algorithm })
}

fn verification(
    algorithm: SigningAlgorithm,
    kind: PublicKeyKind,
) -> Result<&'static dyn VerificationAlgorithm, SignatureError> {
    use PublicKeyKind::{P256, P384, Rsa};
    use SigningAlgorithm as A;
    Ok(match (algorithm, kind) {
        (A::RsaPssSha256, Rsa) => &RSA_PSS_2048_8192_SHA256,
        (A::RsaPssSha384, Rsa) => &RSA_PSS_2048_8192_SHA384,
        (A::RsaPssSha512, Rsa) => &RSA_PSS_2048_8192_SHA512,
        (A::RsaPkcs1Sha256, Rsa) => &RSA_PKCS1_2048_8192_SHA256,
        (A::RsaPkcs1Sha384, Rsa) => &RSA_PKCS1_2048_8192_SHA384,
        (A::RsaPkcs1Sha512, Rsa) => &RSA_PKCS1_2048_8192_SHA512,
        (A::EcdsaSha256, P256) => &ECDSA_P256_SHA256_ASN1,
        (A::EcdsaSha256, P384) => &ECDSA_P384_SHA256_ASN1,
        (A::EcdsaSha384, P256) => &ECDSA_P256_SHA384_ASN1,
        (A::EcdsaSha384, P384) => &ECDSA_P384_SHA384_ASN1,
        (A::EcdsaSha512, P256 | P384) | (A::Sm2Sm3 | A::Ed25519PhSha512, _) => {
            return Err(SignatureError::OnlyKms(algorithm));
        }
        (_, kind) => return Err(SignatureError::OtherKind { algorithm, kind }),
    })
}
