//! Signs and verifies.

use data_encoding::BASE64;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use rsa::sha2::{Digest, Sha256, Sha384, Sha512};
use serde::Deserialize;
use serde_json::json;

use super::call::{KmsCall, find, usable};
use super::material::KeyMaterial;
use super::model::{EmulatedKey, KeyUsage, ProjectKeys};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

/// Messages are shorter than this, in bytes.
const MAX_MESSAGE: usize = 4096;

#[derive(Deserialize)]
struct SignBody {
    key_id: String,
    message: String,
    signing_algorithm: String,
    message_type: Option<String>,
    /// Of verify only.
    signature: Option<String>,
}

#[derive(Deserialize)]
struct PublicKeyBody {
    key_id: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Pss,
    Pkcs1,
    Ecdsa,
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn of(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

fn algorithm(name: &str) -> Result<(Padding, Hash), ApiRejection> {
    let invalid = |text: &str| reject(400, "KMS.0332", text);
    if matches!(
        name,
        "SM2DSA_SM3" | "ED25519_SHA_512" | "ED25519_PH_SHA_512"
    ) {
        return Err(invalid(&format!(
            "signing_algorithm {name} is not emulated"
        )));
    }
    let paddings = [
        ("RSASSA_PSS_", Padding::Pss),
        ("RSASSA_PKCS1_V1_5_", Padding::Pkcs1),
        ("ECDSA_", Padding::Ecdsa),
    ];
    let found = paddings.into_iter().find_map(|(prefix, padding)| {
        let hash = match name.strip_prefix(prefix)? {
            "SHA_256" => Hash::Sha256,
            "SHA_384" => Hash::Sha384,
            "SHA_512" => Hash::Sha512,
            _ => return None,
        };
        Some((padding, hash))
    });
    found.ok_or_else(|| invalid("signing_algorithm is invalid"))
}

/// What sign and verify have in common.
struct Prepared<'k> {
    key: &'k EmulatedKey,
    padding: Padding,
    hash: Hash,
    digest: Vec<u8>,
}

fn prepare<'k>(request: &SignBody, keys: &'k ProjectKeys) -> Result<Prepared<'k>, ApiRejection> {
    let (padding, hash) = algorithm(&request.signing_algorithm)?;
    let key = usable(keys, &request.key_id)?;
    let fits = match (&*key.material, padding, hash) {
        (KeyMaterial::Aes256(_), ..) => {
            return Err(reject(400, "KMS.0331", "Symmetric keys do not sign"));
        }
        (KeyMaterial::Rsa(_), padding, _) => padding != Padding::Ecdsa,
        (KeyMaterial::EcP256(_), Padding::Ecdsa, Hash::Sha256)
        | (KeyMaterial::EcP384(_), Padding::Ecdsa, Hash::Sha384) => true,
        _ => false,
    };
    if key.usage != KeyUsage::SignVerify {
        return Err(reject(400, "KMS.0334", "The key encrypts and decrypts"));
    }
    if !fits {
        let text = "signing_algorithm does not fit the key";
        return Err(reject(400, "KMS.0332", text));
    }
    let message = BASE64.decode(request.message.as_bytes());
    let message = message.map_err(|_| reject(400, "KMS.0308", "message is not Base64"))?;
    if message.len() >= MAX_MESSAGE {
        return Err(reject(400, "KMS.0203", "message is too long"));
    }
    let digest = match request.message_type.as_deref() {
        None | Some("" | "DIGEST") if message.len() == hash.len() => message,
        None | Some("" | "DIGEST") => {
            return Err(reject(400, "KMS.0329", "The digest has the wrong length"));
        }
        Some("RAW") => hash.of(&message),
        Some(_) => return Err(reject(400, "KMS.0308", "message_type is invalid")),
    };
    Ok(Prepared {
        key,
        padding,
        hash,
        digest,
    })
}

pub(super) fn sign(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: SignBody = call.parse()?;
    let prepared = prepare(&request, keys)?;
    let signature = prepared.sign();
    let signature = signature.ok_or_else(|| reject(500, "KMS.0102", "Signing failed"))?;
    Ok(ApiReply::ok(json!({
        "key_id": prepared.key.id,
        "signature": BASE64.encode(&signature),
    })))
}

pub(super) fn verify(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: SignBody = call.parse()?;
    let prepared = prepare(&request, keys)?;
    let signature = request.signature.as_deref();
    let signature = signature.ok_or_else(|| reject(400, "KMS.0204", "signature is missing"))?;
    let signature = BASE64.decode(signature.as_bytes());
    let signature = signature.map_err(|_| reject(400, "KMS.0308", "signature is not Base64"))?;
    Ok(ApiReply::ok(json!({
        "key_id": prepared.key.id,
        "signature_valid": prepared.is_valid(&signature).to_string(),
    })))
}

impl Prepared<'_> {
    fn sign(&self) -> Option<Vec<u8>> {
        let digest = &self.digest;
        match (&*self.key.material, self.padding, self.hash) {
            (KeyMaterial::Aes256(_), ..) => None,
            (KeyMaterial::Rsa(key), Padding::Pss, Hash::Sha256) => {
                key.pss_sign_prehash::<Sha256>(digest).ok()
            }
            (KeyMaterial::Rsa(key), Padding::Pss, Hash::Sha384) => {
                key.pss_sign_prehash::<Sha384>(digest).ok()
            }
            (KeyMaterial::Rsa(key), Padding::Pss, Hash::Sha512) => {
                key.pss_sign_prehash::<Sha512>(digest).ok()
            }
            (KeyMaterial::Rsa(key), _, Hash::Sha256) => {
                key.pkcs1v15_sign_prehash::<Sha256>(digest).ok()
            }
            (KeyMaterial::Rsa(key), _, Hash::Sha384) => {
                key.pkcs1v15_sign_prehash::<Sha384>(digest).ok()
            }
            (KeyMaterial::Rsa(key), _, Hash::Sha512) => {
                key.pkcs1v15_sign_prehash::<Sha512>(digest).ok()
            }
            (KeyMaterial::EcP256(key), ..) => {
                let signature: p256::ecdsa::DerSignature = key.sign_prehash(digest).ok()?;
                Some(signature.as_bytes().to_vec())
            }
            (KeyMaterial::EcP384(key), ..) => {
                let signature: p384::ecdsa::DerSignature = key.sign_prehash(digest).ok()?;
                Some(signature.as_bytes().to_vec())
            }
        }
    }

    fn is_valid(&self, signature: &[u8]) -> bool {
        let digest = &self.digest;
        let verified = match (&*self.key.material, self.padding, self.hash) {
            (KeyMaterial::Aes256(_), ..) => None,
            (KeyMaterial::Rsa(key), padding, hash) => {
                let key = key.to_public_key();
                let verified = match (padding, hash) {
                    (Padding::Pss, Hash::Sha256) => {
                        key.pss_verify_prehash::<Sha256>(digest, signature)
                    }
                    (Padding::Pss, Hash::Sha384) => {
                        key.pss_verify_prehash::<Sha384>(digest, signature)
                    }
                    (Padding::Pss, Hash::Sha512) => {
                        key.pss_verify_prehash::<Sha512>(digest, signature)
                    }
                    (_, Hash::Sha256) => key.pkcs1v15_verify_prehash::<Sha256>(digest, signature),
                    (_, Hash::Sha384) => key.pkcs1v15_verify_prehash::<Sha384>(digest, signature),
                    (_, Hash::Sha512) => key.pkcs1v15_verify_prehash::<Sha512>(digest, signature),
                };
                verified.ok()
            }
            (KeyMaterial::EcP256(key), ..) => p256::ecdsa::DerSignature::from_bytes(signature)
                .and_then(|signature| key.verifying_key().verify_prehash(digest, &signature))
                .ok(),
            (KeyMaterial::EcP384(key), ..) => p384::ecdsa::DerSignature::from_bytes(signature)
                .and_then(|signature| key.verifying_key().verify_prehash(digest, &signature))
                .ok(),
        };
        verified.is_some()
    }
}

pub(super) fn public_key(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: PublicKeyBody = call.parse()?;
    let key = find(keys, &request.key_id)?;
    let public = key.material.public_key();
    let public = public.ok_or_else(|| reject(400, "KMS.0331", "Symmetric keys are secret"))?;
    Ok(ApiReply::ok(
        json!({"key_id": key.id, "public_key": public}),
    ))
}
