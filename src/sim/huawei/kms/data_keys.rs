//! Makes, encrypts and decrypts data keys, and makes random numbers.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE, HEXUPPER};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::json;

use super::call::{KmsCall, check_aad, number, usable};
use super::cipher::{self, Purpose};
use super::data::{asymmetric_unsupported, ensure_encrypts};
use super::material::random as random_bytes;
use super::model::{EmulatedKey, ProjectKeys};
use crate::sim::huawei::reply::{ApiRejection, ApiReply, reject};

/// Length of SHA-256, in bytes.
const DIGEST: usize = 32;

#[derive(Deserialize)]
struct CreateDataKeyBody {
    key_id: String,
    key_spec: Option<String>,
    datakey_length: Option<String>,
    additional_authenticated_data: Option<String>,
}

#[derive(Deserialize)]
struct EncryptDataKeyBody {
    key_id: String,
    plain_text: String,
    datakey_plain_length: String,
    additional_authenticated_data: Option<String>,
}

#[derive(Deserialize)]
struct DecryptDataKeyBody {
    key_id: String,
    cipher_text: String,
    datakey_cipher_length: String,
    additional_authenticated_data: Option<String>,
}

#[derive(Deserialize)]
struct RandomBody {
    random_data_length: Option<String>,
}

/// A symmetric key that can be used now.
fn symmetric<'k>(keys: &'k ProjectKeys, id: &str) -> Result<&'k EmulatedKey, ApiRejection> {
    let key = usable(keys, id)?;
    if !key.material.spec().is_symmetric() {
        return Err(asymmetric_unsupported());
    }
    ensure_encrypts(key)?;
    Ok(key)
}

fn failed() -> ApiRejection {
    reject(500, "KMS.0102", "Encryption failed")
}

/// Length in bits of the data key that a request asks for.
fn bits(request: &CreateDataKeyBody) -> Result<usize, ApiRejection> {
    if let Some(length) = &request.datakey_length {
        let invalid = |code| {
            reject(
                400,
                code,
                "datakey_length must be 8 to 8192, in multiples of 8",
            )
        };
        let bits = number(length).filter(|bits| (8..=8192).contains(bits));
        let bits = bits.ok_or_else(|| invalid("KMS.1901"))?;
        if !bits.is_multiple_of(8) {
            return Err(invalid("KMS.1903"));
        }
        return Ok(bits);
    }
    match request.key_spec.as_deref() {
        None | Some("AES_256" | "HMAC_256") => Ok(256),
        Some("AES_128") => Ok(128),
        Some("HMAC_384") => Ok(384),
        Some("HMAC_512") => Ok(512),
        Some(spec @ ("SM4" | "HMAC_SM3")) => {
            let text = format!("key_spec {spec} is not emulated");
            Err(reject(400, "KMS.1902", text))
        }
        Some(_) => Err(reject(400, "KMS.1902", "key_spec is invalid")),
    }
}

pub(super) fn create(
    call: &KmsCall<'_>,
    keys: &ProjectKeys,
    shows_plain: bool,
) -> Result<ApiReply, ApiRejection> {
    let request: CreateDataKeyBody = call.parse()?;
    let aad = check_aad(request.additional_authenticated_data.as_deref())?;
    let bits = bits(&request)?;
    let key = symmetric(keys, &request.key_id)?;
    let plain = random_bytes(bits / 8).ok_or_else(failed)?;
    let sealed = cipher::seal(key, Purpose::DataKey, plain.expose(), aad).ok_or_else(failed)?;
    let mut answer = json!({"key_id": key.id, "cipher_text": HEXLOWER.encode(&sealed)});
    if shows_plain {
        answer["plain_text"] = HEXLOWER.encode(plain.expose()).into();
    }
    Ok(ApiReply::ok(answer))
}

pub(super) fn encrypt(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: EncryptDataKeyBody = call.parse()?;
    let aad = check_aad(request.additional_authenticated_data.as_deref())?;
    let key = symmetric(keys, &request.key_id)?;
    let length = length(&request.datakey_plain_length)?;
    let bytes = HEXLOWER_PERMISSIVE.decode(request.plain_text.as_bytes());
    let bytes = bytes.map_err(|_| reject(400, "KMS.2101", "plain_text is not hex"))?;
    if bytes.len() != length + DIGEST {
        let text = "plain_text must be the data key and its SHA-256";
        return Err(reject(400, "KMS.2104", text));
    }
    let (plain, hash) = bytes.split_at(length);
    if digest(&SHA256, plain).as_ref() != hash {
        let text = "plain_text does not end with the SHA-256 of the data key";
        return Err(reject(400, "KMS.2103", text));
    }
    let sealed = cipher::seal(key, Purpose::DataKey, plain, aad).ok_or_else(failed)?;
    Ok(ApiReply::ok(json!({
        "key_id": key.id,
        "cipher_text": HEXLOWER.encode(&sealed),
        "datakey_length": length.to_string(),
    })))
}

/// Decrypts a data key. Huawei's SDK sends the length of the key as `datakey_cipher_length`, and always 32, so
/// that the number is not compared with anything.
pub(super) fn decrypt(call: &KmsCall<'_>, keys: &ProjectKeys) -> Result<ApiReply, ApiRejection> {
    let request: DecryptDataKeyBody = call.parse()?;
    let aad = check_aad(request.additional_authenticated_data.as_deref())?;
    let key = symmetric(keys, &request.key_id)?;
    length(&request.datakey_cipher_length)?;
    let invalid = || reject(400, "KMS.2201", "cipher_text is invalid");
    let sealed = HEXLOWER_PERMISSIVE.decode(request.cipher_text.as_bytes());
    let sealed = sealed.map_err(|_| invalid())?;
    let plain = cipher::open(key, Purpose::DataKey, &sealed, aad).ok_or_else(invalid)?;
    Ok(ApiReply::ok(json!({
        "data_key": HEXLOWER.encode(&plain),
        "datakey_length": plain.len().to_string(),
        "datakey_dgst": HEXUPPER.encode(digest(&SHA256, &plain).as_ref()),
    })))
}

pub(super) fn random(call: &KmsCall<'_>) -> Result<ApiReply, ApiRejection> {
    let request: RandomBody = call.parse()?;
    let length = request.random_data_length.as_deref().unwrap_or("512");
    let bits = number(length).filter(|bits| (8..=8192).contains(bits));
    let bits = bits.ok_or_else(|| reject(400, "KMS.1801", "random_data_length is invalid"))?;
    if !bits.is_multiple_of(8) {
        let text = "random_data_length is not a multiple of 8";
        return Err(reject(400, "KMS.1802", text));
    }
    let bytes = random_bytes(bits / 8).ok_or_else(failed)?;
    Ok(ApiReply::ok(
        json!({"random_data": HEXLOWER.encode(bytes.expose())}),
    ))
}

/// A length in bytes: 1 to 1024.
fn length(text: &str) -> Result<usize, ApiRejection> {
    let length = number(text).filter(|length| (1..=1024).contains(length));
    length.ok_or_else(|| reject(400, "KMS.2102", "the length must be 1 to 1024"))
}
