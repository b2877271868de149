//! Reads values from JSON into [`SecretBytes`].

use std::fmt;

use data_encoding::BASE64;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::types::{SecretValue, SecretVersion, VersionMetadata};
use crate::util::secret_bytes::SecretBytes;

/// `version` in the response of ShowSecretVersion.
#[derive(serde::Deserialize)]
pub(super) struct VersionBody {
    version_metadata: VersionMetadata,
    #[serde(default)]
    secret_string: Option<TextValue>,
    #[serde(default)]
    secret_binary: Option<BinaryValue>,
}

impl VersionBody {
    /// The version, which must have exactly one value.
    pub(super) fn into_version(self) -> Result<SecretVersion, String> {
        let value = match (self.secret_string, self.secret_binary) {
            (Some(text), None) => SecretValue::Text(text.0),
            (None, Some(binary)) => SecretValue::Binary(binary.0),
            (None, None) => return Err("it has neither secret_string nor secret_binary".into()),
            // The service omits the unused one, or sends it empty or null.
            (Some(text), Some(binary)) if binary.0.is_empty() => SecretValue::Text(text.0),
            (Some(text), Some(binary)) if text.0.is_empty() => SecretValue::Binary(binary.0),
            (Some(_), Some(_)) => return Err("it has both secret_string and secret_binary".into()),
        };
        Ok(SecretVersion {
            metadata: self.version_metadata,
            value,
        })
    }
}

struct TextValue(SecretBytes);
struct BinaryValue(SecretBytes);

impl<'de> Deserialize<'de> for TextValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonString;
        impl Visitor<'_> for JsonString {
            type Value = TextValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextValue, E> {
                Ok(TextValue(SecretBytes::new(text.as_bytes().to_vec())))
            }
        }
        deserializer.deserialize_str(JsonString)
    }
}

impl<'de> Deserialize<'de> for BinaryValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JsonString;
        impl Visitor<'_> for JsonString {
            type Value = BinaryValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BinaryValue, E> {
                // The decoder's own error quotes a character of the value.
                let bytes = BASE64
                    .decode(text.as_bytes())
                    .map_err(|_| E::custom("not base64"))?;
                Ok(BinaryValue(SecretBytes::new(bytes)))
            }
        }
        deserializer.deserialize_str(JsonString)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<SecretVersion, String> {
        let text = format!(r#"{{"version_metadata":{{"id":"v1","create_time":1}}{rest}}}"#);
        serde_json::from_str::<VersionBody>(&text)
            .map_err(|error| error.to_string())?
            .into_version()
    }

    #[test]
    fn text_and_binary_come_as_bytes() {
        let text = parse(r#","secret_string":"a\"\u00e9\n""#).unwrap();
        assert_eq!(
            text.value,
            SecretValue::Text(SecretBytes::new("a\"é\n".into()))
        );
        let binary = parse(r#","secret_binary":"AP8=","secret_string":null"#).unwrap();
        assert_eq!(
            binary.value,
            SecretValue::Binary(SecretBytes::new(vec![0, 255]))
        );
        let empty = parse(r#","secret_string":"""#).unwrap();
        assert!(empty.value.bytes().is_empty());
    }

    #[test]
    fn a_version_needs_one_value_and_errors_do_not_quote_it() {
        assert!(parse("").unwrap_err().contains("neither"));
        let both = parse(r#","secret_string":"hunter2","secret_binary":"AA==""#).unwrap_err();
        assert!(both.contains("both") && !both.contains("hunter2"));
        let bad = parse(r#","secret_binary":"hunter2!""#).unwrap_err();
        assert!(
            bad.contains("not base64") && !bad.contains("hunter2"),
            "{bad}"
        );
    }

    #[test]
    fn debug_shows_lengths() {
        let version = parse(r#","secret_string":"hunter2""#).unwrap();
        let shown = format!("{version:?}");
        assert!(
            shown.contains("7 bytes") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
