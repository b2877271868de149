//! Request bodies without copies of what they hide, and checks before anything is sent.

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::cloud::error::{ApiError, ErrorKind};
use crate::util::secret_bytes::SecretBytes;
use crate::util::text::escaped;

/// Most bytes of text that encrypt-data takes. Source: API reference of KMS, encrypt-data.
pub const MAX_DATA: usize = 4096;

/// Most characters of additional authenticated data. Source: API reference of KMS.
pub const MAX_AAD: usize = 128;

/// A JSON object with these texts as its fields: KMS has hardly any other type. Built so that no copy of a text
/// is left behind.
pub(super) fn body(
    operation: &'static str,
    fields: &[(&str, &str)],
) -> Result<SecretBytes, ApiError> {
    // Room for every byte escaped as \u00xx, so that the vector never reallocates.
    let room = |(name, text): &(&str, &str)| name.len() + 6 * text.len() + 6;
    let room: usize = fields.iter().map(room).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 2));
    bytes.push(b'{');
    for (at, (name, text)) in fields.iter().enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(format!("\"{name}\":").as_bytes());
        serde_json::to_writer(&mut *bytes, text).map_err(|_| {
            let text = format!("{name} cannot be written as JSON");
            ApiError::local(operation, ErrorKind::Invalid, text)
        })?;
    }
    bytes.push(b'}');
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

/// A data key as encrypt-datakey wants it: the key and its SHA-256, as hex. Keys of kind SM4 want SM3 instead.
pub(super) fn with_digest(plain: &SecretBytes) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(plain.len() + 32));
    bytes.extend_from_slice(plain.expose());
    bytes.extend_from_slice(digest(&SHA256, plain.expose()).as_ref());
    Zeroizing::new(HEXLOWER.encode(&bytes))
}

pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn invalid(operation: &'static str, text: String) -> ApiError {
    ApiError::local(operation, ErrorKind::Invalid, text)
}

/// Checks the ID of a key: a UUID.
pub(super) fn check_key_id(operation: &'static str, id: &str) -> Result<(), ApiError> {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_alphanumeric(),
    };
    if id.len() == 36 && id.bytes().enumerate().all(fits) {
        return Ok(());
    }
    let shown: String = id.chars().take(64).collect();
    let shown = escaped(&shown);
    let text = format!(
        "key ID \"{shown}\" must have 36 characters, such as 0d0466b0-e727-4d9c-b35d-f84bb474a37f"
    );
    Err(invalid(operation, text))
}

/// Checks additional authenticated data.
pub(super) fn check_aad(operation: &'static str, aad: Option<&str>) -> Result<(), ApiError> {
    let length = aad.map_or(1, |text| text.chars().count());
    if (1..=MAX_AAD).contains(&length) {
        return Ok(());
    }
    let text = format!(
        "additional authenticated data has {length} characters; KMS accepts 1 to {MAX_AAD}"
    );
    Err(invalid(operation, text))
}

/// Checks the text for encrypt-data, and returns it.
pub(super) fn check_data<'a>(
    operation: &'static str,
    plain: &'a SecretBytes,
) -> Result<&'a str, ApiError> {
    if !(1..=MAX_DATA).contains(&plain.len()) {
        let length = plain.len();
        let text =
            format!("the text has {length} bytes; KMS encrypts 1 to {MAX_DATA} bytes directly");
        return Err(invalid(operation, text));
    }
    plain.expose_str().ok_or_else(|| {
        let text = "the data is not UTF-8 text: encode it as Base64 first";
        invalid(operation, text.to_owned())
    })
}

/// Checks a length in bits: 8 to 8192, and a multiple of 8.
pub(super) fn check_bits(operation: &'static str, bits: u32) -> Result<(), ApiError> {
    if (8..=8192).contains(&bits) && bits.is_multiple_of(8) {
        return Ok(());
    }
    let text = format!("{bits} bits: KMS makes 8 to 8192 bits, in multiples of 8");
    Err(invalid(operation, text))
}

/// Checks the length of a data key in bytes.
pub(super) fn check_data_key(operation: &'static str, bytes: usize) -> Result<(), ApiError> {
    if (1..=1024).contains(&bytes) {
        return Ok(());
    }
    let text = format!("a data key has {bytes} bytes; KMS accepts 1 to 1024");
    Err(invalid(operation, text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn bodies_are_the_json_that_serde_would_write(one in ".{0,40}", two in ".{0,40}") {
            let bytes = body("T", &[("a", &one), ("b", &two)]).unwrap();
            let back: serde_json::Value = serde_json::from_slice(bytes.expose()).unwrap();
            prop_assert_eq!(back, json!({ "a": one, "b": two }));
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_sent() {
        let aad = |length: usize| check_aad("T", Some(&"ä".repeat(length)));
        assert!(aad(1).is_ok() && aad(128).is_ok() && check_aad("T", None).is_ok());
        assert!(aad(0).is_err() && aad(129).is_err());
        let data = |length: usize| check_data("T", &SecretBytes::new(vec![b'x'; length])).is_ok();
        assert!(data(1) && data(4096) && !data(0) && !data(4097));
        let error = check_data("T", &SecretBytes::new(vec![255])).unwrap_err();
        assert!(error.message.contains("Base64"), "{error}");
        let bits = |bits| check_bits("T", bits).is_ok();
        assert!(bits(8) && bits(8192) && !bits(0) && !bits(12) && !bits(8200));
        let id = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
        assert!(check_key_id("T", id).is_ok());
        for bad in [
            "",
            "alias/x",
            &id[1..],
            &format!("{id}0"),
            &id.replace('-', "0"),
        ] {
            assert!(check_key_id("T", bad).is_err(), "{bad}");
        }
    }
}
