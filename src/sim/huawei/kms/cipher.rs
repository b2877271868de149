//! Cipher texts of symmetric keys.
//!
//! `magic(8) ‖ key ID(36) ‖ salt(40) ‖ IV(12) ‖ AES-256-GCM ‖ tag(16)`. The service's own form is not documented;
//! with this one, the shortest and the longest cipher text of encrypt-data fit the lengths that it documents.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::material::{KeyMaterial, random};
use super::model::EmulatedKey;

const MAGIC: &[u8; 8] = b"DEWSIM01";
const ID: usize = 36;
const SALT: usize = 40;
const HEAD: usize = MAGIC.len() + ID + SALT + NONCE_LEN;

/// What was encrypted. A data key cannot be decrypted as data, nor the other way around.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Data,
    DataKey,
}

/// Encrypts. `None` if the key is not symmetric.
pub(super) fn seal(
    key: &EmulatedKey,
    purpose: Purpose,
    plain: &[u8],
    aad: &str,
) -> Option<Vec<u8>> {
    let sealing = aead(key)?;
    let mut cipher = MAGIC.to_vec();
    cipher.extend_from_slice(key.id.as_bytes());
    cipher.extend_from_slice(random(SALT + NONCE_LEN)?.expose());
    let aad = authenticated(&cipher, purpose, aad);
    let nonce = Nonce::try_assume_unique_for_key(cipher.get(HEAD - NONCE_LEN..HEAD)?).ok()?;
    let mut text = plain.to_vec();
    let sealed = sealing.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text);
    sealed.ok()?;
    cipher.extend_from_slice(&text);
    Some(cipher)
}

/// The ID of the key that made a cipher text, if it is one.
pub(super) fn key_id(cipher: &[u8]) -> Option<&str> {
    let rest = cipher.strip_prefix(MAGIC)?;
    std::str::from_utf8(rest.get(..ID)?).ok()
}

/// Decrypts. `None` if the key did not make the cipher text, for this purpose and with these data.
pub(super) fn open(
    key: &EmulatedKey,
    purpose: Purpose,
    cipher: &[u8],
    aad: &str,
) -> Option<Vec<u8>> {
    if key_id(cipher)? != key.id {
        return None;
    }
    let (head, text) = cipher.split_at_checked(HEAD)?;
    let nonce = Nonce::try_assume_unique_for_key(head.get(HEAD - NONCE_LEN..)?).ok()?;
    let aad = authenticated(head, purpose, aad);
    let mut text = text.to_vec();
    let plain = aead(key)?.open_in_place(nonce, Aad::from(aad), &mut text);
    plain.ok().map(|plain| plain.to_vec())
}

fn aead(key: &EmulatedKey) -> Option<LessSafeKey> {
    let KeyMaterial::Aes256(bytes) = &*key.material else {
        return None;
    };
    let key = UnboundKey::new(&AES_256_GCM, bytes.expose()).ok()?;
    Some(LessSafeKey::new(key))
}

fn authenticated(head: &[u8], purpose: Purpose, aad: &str) -> Vec<u8> {
    [head, &[purpose as u8], aad.as_bytes()].concat()
}
