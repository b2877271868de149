//! Algorithm suite 0x0478: how the keys of a message are derived from its data key, and what they seal.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA512, KeyType, Salt};

use super::error::MessageError;
use crate::util::secret_bytes::SecretBytes;

/// The suite's number, AES_256_GCM_HKDF_SHA512_COMMIT_KEY.
pub(super) const SUITE: [u8; 2] = [0x04, 0x78];
/// Length of a data key, in bytes.
pub const DATA_KEY_LEN: usize = 32;
/// Length of an authentication tag.
pub(super) const TAG_LEN: usize = 16;
/// Length of a frame's initialization vector, which is the frame's number.
pub(super) const IV_LEN: usize = NONCE_LEN;

const DERIVE_LABEL: &[u8] = b"DERIVEKEY";
const COMMIT_LABEL: &[u8] = b"COMMITKEY";
const FRAME_LABEL: &[u8] = b"AWSKMSEncryptionClient Frame";
const FINAL_FRAME_LABEL: &[u8] = b"AWSKMSEncryptionClient Final Frame";
/// Message ID, longest label, frame number, length of the text.
const MAX_AAD: usize = 32 + FINAL_FRAME_LABEL.len() + 4 + 8;

const KEY_LENGTH: &str = "the data key must have 32 bytes";
const SEAL_FAILED: &str = "AES-256-GCM failed to encrypt";

/// The random number that identifies a message, and from which its keys are derived.
pub type MessageId = [u8; 32];

/// The key that encrypts a message, derived from its data key and its ID.
pub(super) struct MessageKey {
    key: LessSafeKey,
    message_id: MessageId,
}

/// The length of the key commitment, for HKDF.
struct CommitmentLength;

impl KeyType for CommitmentLength {
    fn len(&self) -> usize {
        32
    }
}

impl MessageKey {
    /// Derives the key of a message, and the commitment to it.
    pub(super) fn derive(
        data_key: &SecretBytes,
        message_id: MessageId,
    ) -> Result<(Self, [u8; 32]), MessageError> {
        let failed = |_| MessageError::Crypto(KEY_LENGTH);
        if data_key.len() != DATA_KEY_LEN {
            return Err(MessageError::Crypto(KEY_LENGTH));
        }
        let key = Salt::new(HKDF_SHA512, &message_id).extract(data_key.expose());
        let mut commitment = [0; 32];
        key.expand(&[COMMIT_LABEL], CommitmentLength)
            .and_then(|bytes| bytes.fill(&mut commitment))
            .map_err(failed)?;
        let info = [SUITE.as_slice(), DERIVE_LABEL];
        let key = key.expand(&info, &AES_256_GCM).map_err(failed)?;
        let key = LessSafeKey::new(UnboundKey::from(key));
        Ok((Self { key, message_id }, commitment))
    }

    /// The tag of a header: of no text, with a nonce of zeros.
    pub(super) fn header_tag(&self, body: &[u8]) -> Result<[u8; TAG_LEN], MessageError> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(body), &mut [])
            .map_err(|_| MessageError::Crypto(SEAL_FAILED))?;
        let tag = tag.as_ref().first_chunk().copied();
        tag.ok_or(MessageError::Crypto(SEAL_FAILED))
    }

    /// Whether a tag is that of a header.
    pub(super) fn is_header_tag(&self, body: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let mut tag = *tag;
        self.key
            .open_in_place(nonce, Aad::from(body), &mut tag)
            .is_ok()
    }

    /// Encrypts a frame's text in place; returns its tag.
    pub(super) fn seal(
        &self,
        number: u32,
        is_final: bool,
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], MessageError> {
        let aad = FrameAad::new(&self.message_id, number, is_final, text.len());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(aad.bytes()), text)
            .map_err(|_| MessageError::Crypto(SEAL_FAILED))?;
        let tag = tag.as_ref().first_chunk().copied();
        tag.ok_or(MessageError::Crypto(SEAL_FAILED))
    }

    /// Decrypts a frame's ciphertext, which its tag follows, in place; `None` if it was changed.
    pub(super) fn open<'a>(
        &self,
        number: u32,
        is_final: bool,
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let length = sealed.len().checked_sub(TAG_LEN)?;
        let aad = FrameAad::new(&self.message_id, number, is_final, length);
        let opened = self
            .key
            .open_in_place(nonce(number), Aad::from(aad.bytes()), sealed);
        opened.ok()
    }
}

/// The initialization vector of a frame. No two frames of a message have the same number, and no two messages
/// the same key.
pub(super) fn frame_iv(number: u32) -> [u8; IV_LEN] {
    let mut iv = [0; IV_LEN];
    iv[IV_LEN - 4..].copy_from_slice(&number.to_be_bytes());
    iv
}

fn nonce(number: u32) -> Nonce {
    Nonce::assume_unique_for_key(frame_iv(number))
}

/// What is authenticated with a frame: the message, whether the frame is the final one, its number and length.
struct FrameAad {
    bytes: [u8; MAX_AAD],
    length: usize,
}

impl FrameAad {
    fn new(id: &MessageId, number: u32, is_final: bool, text: usize) -> Self {
        let mut aad = Self {
            bytes: [0; MAX_AAD],
            length: 0,
        };
        let label = if is_final {
            FINAL_FRAME_LABEL
        } else {
            FRAME_LABEL
        };
        for part in [
            id,
            label,
            &number.to_be_bytes(),
            &(text as u64).to_be_bytes(),
        ] {
            aad.bytes[aad.length..aad.length + part.len()].copy_from_slice(part);
            aad.length += part.len();
        }
        aad
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
