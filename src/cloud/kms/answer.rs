//! Reads responses: texts that hide something, and numbers that come as texts.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::util::secret_bytes::SecretBytes;

/// Text that may be a secret.
pub(super) struct HiddenText(SecretBytes);

impl HiddenText {
    /// The bytes that the hex stands for. The error does not quote it.
    pub(super) fn hex(&self, field: &str) -> Result<SecretBytes, String> {
        let bytes = HEXLOWER_PERMISSIVE.decode(self.0.expose());
        non_empty(bytes.ok(), field, "hex").map(SecretBytes::new)
    }

    /// The text itself.
    pub(super) fn into_bytes(self) -> SecretBytes {
        self.0
    }
}

impl<'de> Deserialize<'de> for HiddenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = HiddenText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HiddenText, E> {
                Ok(HiddenText(SecretBytes::new(text.as_bytes().to_vec())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Decodes hex that hides nothing.
pub(super) fn hex(text: &str, field: &str) -> Result<Vec<u8>, String> {
    non_empty(
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
        field,
        "hex",
    )
}

/// Decodes Base64 that hides nothing.
pub(super) fn base64(text: &str, field: &str) -> Result<Vec<u8>, String> {
    non_empty(BASE64.decode(text.as_bytes()).ok(), field, "Base64")
}

fn non_empty(bytes: Option<Vec<u8>>, field: &str, what: &str) -> Result<Vec<u8>, String> {
    match bytes {
        None => Err(format!("{field} is not {what}")),
        Some(bytes) if bytes.is_empty() => Err(format!("{field} is empty")),
        Some(bytes) => Ok(bytes),
    }
}

/// Reads text, or a number or flag that the service may write without quotes, or null.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    use serde_json::Value;
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(_) | Value::Object(_) => {
            return Err(de::Error::custom("expected text"));
        }
    })
}
