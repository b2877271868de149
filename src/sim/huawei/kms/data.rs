//! Encrypts and decrypts small data.

use data_encoding::BASE64;
use rsa::sha2::Sha256;
use serde::Deserialize;
use serde_json::json;

use super::call::{KmsCall, check_aad, usable};
use super::cipher::{self, Purpose};
use super::material::KeyMaterial;
use super::model::{EmulatedKey, KeyUsage, ProjectKeys};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

/// Most bytes of text.
const MAX_TEXT: usize = 4096;
/// Lengths of a cipher text in Base64, as documented.
const MIN_CIPHER: usize = 128;
const MAX_CIPHER: usize = 5648;

#[derive(Deserialize)]
struct EncryptDataBody {
    key_id: String,
    plain_text: String,
    encryption_algorithm: Option<String>,
    additional_authenticated_data: Option<String>,
}

#[derive(Deserialize)]
struct DecryptDataBody {
    key_id: Option<String>,
    cipher_text: String,
    encryption_algorithm: Option<String>,
    additional_authenticated_data: Option<String>,
}

enum Algorithm {
    Symmetric,
    RsaOaep,
}

fn algorithm(name: Option<&str>) -> Result<Algorithm, ApiRejection> {
    match name {
        None | Some("" | "SYMMETRIC_DEFAULT") => Ok(Algorithm::Symmetric),
        Some("RSAES_OAEP_SHA_256") => Ok(Algorithm::RsaOaep),
        Some("SM2_ENCRYPT") => {
            let text = "encryption_algorithm SM2_ENCRYPT is not emulated";
            Err(reject(400, "KMS.2105", text))
        }
        Some(_) => Err(reject(400, "KMS.2105", "encryption_algorithm is invalid")),
    }
}

/// Rejects a key that does not encrypt.
pub(super) fn ensure_encrypts(key: &EmulatedKey) -> Result<(), ApiRejection> {
    match key.usage {
        KeyUsage::EncryptDecrypt => Ok(()),
        KeyUsage::SignVerify => Err(reject(400, "KMS.0335", "The key signs and verifies")),
    }
}

fn symmetric_unsupported() -> ApiRejection {
    reject(400, "KMS.0331", "The algorithm needs an asymmetric key")
}

pub(super) fn asymmetric_unsupported() -> ApiRejection {
    reject(400, "KMS.0325", "Asymmetric keys are not supported")
}

fn invalid_cipher() -> ApiRejection {
    reject(400, "KMS.2201", "cipher_text is invalid")
}

pub(super) fn encrypt(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: EncryptDataBody = call.parse()?;
    let aad = check_aad(request.additional_authenticated_data.as_deref())?;
    let algorithm = algorithm(request.encryption_algorithm.as_deref())?;
    let key = usable(keys, &request.key_id)?;
    ensure_encrypts(key)?;
    let text = request.plain_text;
    if !(1..=MAX_TEXT).contains(&text.len()) {
        return Err(reject(
            400,
            "KMS.2102",
            "plain_text must have 1 to 4096 bytes",
        ));
    }
    // The documented pattern is ^.{1,4096}$, and a dot matches no line break.
    if text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        return Err(reject(400, "KMS.2101", "plain_text must match ^.{1,4096}$"));
    }
    let sealed = match (algorithm, &*key.material) {
        (Algorithm::Symmetric, KeyMaterial::Aes256(_)) => {
            cipher::seal(key, Purpose::Data, text.as_bytes(), aad)
        }
        (Algorithm::Symmetric, _) => return Err(asymmetric_unsupported()),
        (Algorithm::RsaOaep, KeyMaterial::Rsa(private)) => {
            let public = private.to_public_key();
            let sealed = public.oaep_encrypt::<Sha256>(text.as_bytes());
            let too_long = || reject(400, "KMS.2108", "plain_text is too long for the RSA key");
            Some(sealed.map_err(|_| too_long())?)
        }
        (Algorithm::RsaOaep, _) => return Err(symmetric_unsupported()),
    };
    let sealed = sealed.ok_or_else(|| reject(500, "KMS.0102", "Encryption failed"))?;
    Ok(ApiReply::ok(
        json!({"key_id": key.id, "cipher_text": BASE64.encode(&sealed)}),
    ))
}

pub(super) fn decrypt(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: DecryptDataBody = call.parse()?;
    let aad = check_aad(request.additional_authenticated_data.as_deref())?;
    let algorithm = algorithm(request.encryption_algorithm.as_deref())?;
    if !(MIN_CIPHER..=MAX_CIPHER).contains(&request.cipher_text.len()) {
        return Err(reject(
            400,
            "KMS.2204",
            "cipher_text must have 128 to 5648 characters",
        ));
    }
    let sealed = BASE64.decode(request.cipher_text.as_bytes());
    let sealed = sealed.map_err(|_| invalid_cipher())?;
    let (id, plain) = match algorithm {
        Algorithm::Symmetric => {
            // The cipher text names its key, whatever key the request names.
            let id = cipher::key_id(&sealed).ok_or_else(invalid_cipher)?;
            let key = usable(keys, id)?;
            (&key.id, cipher::open(key, Purpose::Data, &sealed, aad))
        }
        Algorithm::RsaOaep => {
            let id = request.key_id.as_deref();
            let id = id.ok_or_else(|| reject(400, "KMS.0204", "key_id is missing"))?;
            let key = usable(keys, id)?;
            ensure_encrypts(key)?;
            let KeyMaterial::Rsa(private) = &*key.material else {
                return Err(symmetric_unsupported());
            };
            (&key.id, private.oaep_decrypt::<Sha256>(&sealed).ok())
        }
    };
    let plain = plain.and_then(|plain| String::from_utf8(plain).ok());
    let plain = plain.ok_or_else(invalid_cipher)?;
    Ok(ApiReply::ok(json!({
        "key_id": id,
        "plain_text_base64": BASE64.encode(plain.as_bytes()),
        "plain_text": plain,
    })))
}
