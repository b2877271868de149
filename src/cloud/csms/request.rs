//! Request bodies without copies of the value, and checks of names.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::name::{NAME_RULE, is_valid_name};
use super::types::SecretValue;
use crate::cloud::error::{ApiError, ErrorKind};
use crate::util::secret_bytes::SecretBytes;

/// Longest value that CSMS accepts, in characters as sent.
const MAX_VALUE: usize = 32_768;

/// A JSON object with the fields and the value, built so that no copy of the value is left behind.
pub(super) fn body(
    operation: &'static str,
    fields: &[(&str, serde_json::Value)],
    value: &SecretValue,
) -> Result<SecretBytes, ApiError> {
    let invalid = |text: String| ApiError::local(operation, ErrorKind::Invalid, text);
    let (name, text) = match value {
        SecretValue::Text(bytes) => {
            let text = bytes.expose_str().ok_or_else(|| {
                invalid("the value is not UTF-8 text; store it as binary".to_owned())
            })?;
            ("secret_string", Zeroizing::new(text.to_owned()))
        }
        SecretValue::Binary(bytes) => (
            "secret_binary",
            Zeroizing::new(BASE64.encode(bytes.expose())),
        ),
    };
    let length = text.chars().count();
    if length > MAX_VALUE {
        return Err(invalid(format!(
            "the value is {length} characters long as {name}; CSMS accepts at most {MAX_VALUE}"
        )));
    }
    let mut head = String::from("{");
    for (field, value) in fields {
        head.push_str(&format!("\"{field}\":{value},"));
    }
    // Room for every byte escaped as \u00xx, so that the vector never reallocates.
    let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + 6 * text.len() + 32));
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(format!("\"{name}\":").as_bytes());
    serde_json::to_writer(&mut *bytes, text.as_str())
        .map_err(|_| invalid("the value cannot be written as JSON".to_owned()))?;
    bytes.push(b'}');
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

/// Checks the name of a secret or stage.
pub(super) fn check_name(operation: &'static str, what: &str, text: &str) -> Result<(), ApiError> {
    if is_valid_name(text) {
        return Ok(());
    }
    Err(invalid_text(operation, what, text, NAME_RULE))
}

/// Checks a version ID: `[a-zA-Z0-9][a-zA-Z0-9-_.]{0,63}`.
pub(super) fn check_version(operation: &'static str, text: &str) -> Result<(), ApiError> {
    let is_valid = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphanumeric() || (at > 0 && b"_-.".contains(&byte))
    };
    if (1..=64).contains(&text.len()) && text.bytes().enumerate().all(is_valid) {
        return Ok(());
    }
    let rule = "1 to 64 letters, digits, ., _ or -, beginning with a letter or digit";
    Err(invalid_text(operation, "version", text, rule))
}

fn invalid_text(operation: &'static str, what: &str, text: &str, rule: &str) -> ApiError {
    let shown: String = text.chars().take(64).collect();
    let message = format!("{what} {shown:?} must be {rule}");
    ApiError::local(operation, ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn names_that_pass_are_path_segments(text in "[!-~]{0,70}|[a-z./%]{0,6}") {
            for passed in [check_name("T", "name", &text), check_version("T", &text)] {
                if passed.is_ok() {
                    prop_assert_ne!(text.as_str(), "..");
                    prop_assert_ne!(text.as_str(), ".");
                    prop_assert!(!text.contains(['/', '%', '?', '#']));
                    prop_assert_eq!(crate::cloud::sign::encode(&text), text.clone());
                }
            }
        }

        #[test]
        fn bodies_are_the_json_that_serde_would_write(text in ".{0,40}", name in "[a-z]{1,5}") {
            let value = SecretValue::Text(SecretBytes::from(text.clone()));
            let bytes = body("T", &[("name", json!(name))], &value).unwrap();
            let back: serde_json::Value = serde_json::from_slice(bytes.expose()).unwrap();
            prop_assert_eq!(back, json!({ "name": name, "secret_string": text }));
        }
    }

    #[test]
    fn binary_goes_as_base64_and_long_values_are_refused() {
        let value = SecretValue::Binary(SecretBytes::new(vec![0, 255]));
        let bytes = body("T", &[], &value).unwrap();
        assert_eq!(bytes.expose(), br#"{"secret_binary":"AP8="}"#);

        let long = SecretValue::Text(SecretBytes::new(vec![b'x'; MAX_VALUE + 1]));
        let error = body("T", &[], &long).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("32769"), "{error}");
    }
}
