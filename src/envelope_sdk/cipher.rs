//! AES-GCM with a data key.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::algorithm::SdkAlgorithm;
use super::error::SdkError;

/// Bytes of an IV.
pub(super) const IV: usize = 12;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// An expanded data key.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(algorithm: SdkAlgorithm, dek: &[u8]) -> Result<Self, SdkError> {
        let aead = match algorithm {
            SdkAlgorithm::Aes128Gcm => &AES_128_GCM,
            SdkAlgorithm::Aes256Gcm => &AES_256_GCM,
        };
        let length = dek.len();
        let key = UnboundKey::new(aead, dek);
        let key = key.map_err(|_| SdkError::DekLength { algorithm, length })?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Decrypts ciphertext and tag in place and returns the text; `None` if the tag does not match.
    pub(super) fn open<'a>(
        &self,
        iv: [u8; IV],
        aad: &[u8],
        in_out: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let nonce = Nonce::assume_unique_for_key(iv);
        self.0.open_in_place(nonce, Aad::from(aad), in_out).ok()
    }

    /// Encrypts in place and returns the tag.
    pub(super) fn seal(
        &self,
        iv: [u8; IV],
        aad: &[u8],
        in_out: &mut [u8],
        limit: &'static str,
    ) -> Result<[u8; TAG], SdkError> {
        let nonce = Nonce::assume_unique_for_key(iv);
        let sealed = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), in_out);
        let sealed = sealed.map_err(|_| SdkError::TooLong(limit))?;
        let mut tag = [0; TAG];
        tag.copy_from_slice(sealed.as_ref());
        Ok(tag)
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SdkError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| SdkError::Random)?;
    Ok(bytes)
}
