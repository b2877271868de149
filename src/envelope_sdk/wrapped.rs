//! Wrapped data keys, and what a message says about the keys that wrapped them.

use super::error::SdkError;

/// Provider of data keys that KMS wrapped.
pub const KMS_PROVIDER: &str = "huawei-kms";
/// Provider of data keys that a local key wrapped.
pub const LOCAL_PROVIDER: &str = "huawei-local";

const DISCOVERY: u8 = 1;
const NO_DISCOVERY: u8 = 2;

/// A data key, encrypted by one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDek {
    /// [`KMS_PROVIDER`] or [`LOCAL_PROVIDER`]; anything in a foreign message.
    pub provider: String,
    /// What the message says about the key.
    pub info: SdkKeyInfo,
    /// The encrypted data key.
    pub wrapped: Vec<u8>,
}

/// What a message says about the key that wrapped a data key. Not authenticated until the data key is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SdkKeyInfo {
    /// Nothing: the reader must try the keys that it has.
    Unnamed,
    /// Where the SDK's discovery would look for the key.
    Discovery(Discovery),
}

/// A key as a message names it. Its writer may be a stranger: look up the endpoint of the region in a table of
/// your own, and use a key only if it is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Key id of KMS.
    pub key_id: String,
    /// Region.
    pub region: String,
    /// Project id.
    pub project: String,
    /// Endpoint. **Never call it.** The SDK does, before anything is authenticated.
    pub endpoint: String,
}

impl SdkKeyInfo {
    /// Parses the field of a header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SdkError> {
        let invalid = |problem: &str| SdkError::header("key information", problem);
        match bytes.split_first() {
            Some((&NO_DISCOVERY, [])) => Ok(Self::Unnamed),
            Some((&DISCOVERY, mut rest)) => {
                let mut text = || {
                    let (length, after) =
                        rest.split_first().ok_or_else(|| invalid("it is cut off"))?;
                    let (text, after) = after
                        .split_at_checked(usize::from(*length))
                        .ok_or_else(|| invalid("it is cut off"))?;
                    rest = after;
                    let text = String::from_utf8(text.to_vec());
                    text.map_err(|_| invalid("it is not UTF-8"))
                };
                let discovery = Discovery {
                    key_id: text()?,
                    region: text()?,
                    project: text()?,
                    endpoint: text()?,
                };
                match rest {
                    [] => Ok(Self::Discovery(discovery)),
                    _ => Err(invalid("it is longer than its four texts")),
                }
            }
            _ => Err(invalid("it is neither 02 nor 01 with four texts")),
        }
    }

    /// The field of a header.
    pub(super) fn serialize(&self) -> Result<Vec<u8>, SdkError> {
        let Self::Discovery(discovery) = self else {
            return Ok(vec![NO_DISCOVERY]);
        };
        let Discovery {
            key_id,
            region,
            project,
            endpoint,
        } = discovery;
        let mut bytes = vec![DISCOVERY];
        for text in [key_id, region, project, endpoint] {
            let length = u8::try_from(text.len());
            bytes.push(length.map_err(|_| SdkError::header("key information", "it is too long"))?);
            bytes.extend(text.as_bytes());
        }
        Ok(bytes)
    }
}
