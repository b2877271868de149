//! Request bodies without copies of the value, and checks of names.

use data_encoding::BASE64;
use zeroize::Zeroizing;

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

/// Names of secrets and stages: `[a-zA-Z0-9_-]{1,64}`.
pub(super) fn check_name(operation: &'static str, what: &str, text: &str) -> Result<(), ApiError> {
    check(
        operation,
        what,
        text,
        "a-z, A-Z, 0-9, _ and -",
        |_, byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte),
    )
}

/// Version IDs: `[a-zA-Z0-9][a-zA-Z0-9-_.]{0,63}`.
pub(super) fn check_version(operation: &'static str, text: &str) -> Result<(), ApiError> {
    let rule = "a-z, A-Z, 0-9, _, - and . after a letter or digit";
    check(operation, "version", text, rule, |at, byte| {
        byte.is_ascii_alphanumeric() || (at > 0 && b"_-.".contains(&byte))
    })
}

fn check(
    operation: &'static str,
    what: &str,
    text: &str,
    rule: &str,
    good: impl Fn(usize, u8) -> bool,
) -> Result<(), ApiError> {
    let fits = (1..=64).contains(&text.len());
    if fits && text.bytes().enumerate().all(|(at, byte)| good(at, byte)) {
        return Ok(());
    }
    let shown: String = text.chars().take(64).collect();
    Err(ApiError::local(
        operation,
        ErrorKind::Invalid,
        format!("{what} {shown:?} must be 1 to 64 characters of {rule}"),
    ))
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
