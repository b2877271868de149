//! Keys of KMS, in one region or several.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::context::EncryptionContext;
use super::error::KeyError;
use super::header::WrappedKey;
use super::keys::KeyProvider;
use super::suite::DATA_KEY_LEN;
use crate::cloud::{ApiError, Caller, Credentials, Kms, Region, Turn};
use crate::util::secret_bytes::SecretBytes;
use crate::util::text::escaped;

/// The provider of keys of KMS in a message.
const PROVIDER: &str = "huawei-kms";
/// How long one region may take, retries included.
const REGION_TIMEOUT: Duration = Duration::from_secs(20);
/// Length of a data key, for KMS.
const DATA_KEY_BITS: u32 = 8 * DATA_KEY_LEN as u32;

/// A key of KMS, as `REGION/KEY-ID` or `REGION/PROJECT/KEY-ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsKey {
    /// The region, which determines the address that is called.
    pub region: Region,
    /// The project; that of the credentials in the region if `None`.
    pub project: Option<String>,
    /// The key's ID.
    pub key_id: String,
}

impl FromStr for KmsKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (region, project, key_id) = match parts[..] {
            [region, key_id] => (region, None, key_id),
            [region, project, key_id] => (region, Some(project.to_owned()), key_id),
            _ => return Err("expected REGION/KEY-ID, such as cn-north-4/0d0466b0-…".to_owned()),
        };
        if key_id.is_empty() || project.as_deref() == Some("") {
            return Err("the project or the key ID is empty: expected REGION/KEY-ID".to_owned());
        }
        Ok(Self {
            region: region.parse().map_err(|error| format!("{error}"))?,
            project,
            key_id: key_id.to_owned(),
        })
    }
}

impl KmsKey {
    /// What a message says about the key: never an address.
    fn info(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Whether a wrapped key is one of this key.
    fn is_of(&self, wrapped: &WrappedKey) -> bool {
        let named = || {
            let text = std::str::from_utf8(&wrapped.info).ok()?;
            text.parse::<Self>().ok()
        };
        wrapped.provider == PROVIDER
            && named().is_some_and(|key| key.region == self.region && key.key_id == self.key_id)
    }
}

impl fmt::Display for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.key_id)
    }
}

/// Why a key was not used.
#[derive(Debug)]
pub struct KeyFailure {
    /// The key.
    pub key: KmsKey,
    /// What KMS answered, or why it could not be asked.
    pub error: ApiError,
}

/// A data key that was made and wrapped.
#[derive(Debug)]
pub struct NewDataKey {
    /// The data key.
    pub data_key: SecretBytes,
    /// The data key, wrapped, in the order of the keys.
    pub wrapped: Vec<WrappedKey>,
    /// The keys that failed, if fewer are needed.
    pub left_out: Vec<KeyFailure>,
}

/// Keys of KMS that wrap and unwrap data keys. The first that answers makes the data key; each wraps it.
///
/// The additional authenticated data of a wrapped key is [`EncryptionContext::binding`], so that KMS unwraps it
/// only for its own context.
#[derive(Clone, Debug)]
pub struct KmsKeys {
    kms: Kms,
    credentials: Credentials,
    keys: Vec<KmsKey>,
    needed: usize,
}

impl KmsKeys {
    /// Uses `keys`, in this order. `needed` is how many must wrap a new data key; all if `None`. Keys of the region
    /// `near` unwrap first.
    ///
    /// # Errors
    /// If there is no key, a key occurs twice, or more are needed than there are.
    pub fn new(
        kms: Kms,
        credentials: Credentials,
        keys: Vec<KmsKey>,
        needed: Option<usize>,
        near: Option<&Region>,
    ) -> Result<Self, KeyError> {
        for (index, key) in keys.iter().enumerate() {
            if keys[..index]
                .iter()
                .any(|other| other.to_string() == key.to_string())
            {
                return Err(format!("the key {key} occurs twice").into());
            }
        }
        let needed = needed.unwrap_or(keys.len());
        if !(1..=keys.len()).contains(&needed) {
            let count = keys.len();
            return Err(format!("{needed} keys are needed, {count} are given").into());
        }
        let mut keys = keys;
        keys.sort_by_key(|key| Some(&key.region) != near);
        Ok(Self {
            kms,
            credentials,
            keys,
            needed,
        })
    }

    /// Makes a data key with the first key that answers, and wraps it with the others.
    ///
    /// # Errors
    /// If fewer keys than needed wrap it. The error names each that failed, with the reason.
    pub async fn make(&self, context: &EncryptionContext) -> Result<NewDataKey, KeyError> {
        let aad = context.binding();
        let mut left_out = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            let made = self
                .kms
                .create_data_key(
                    &self.caller(key),
                    &key.key_id,
                    DATA_KEY_BITS,
                    Some(&aad),
                    deadline(),
                )
                .await;
            let made = match made {
                Ok(made) => made,
                Err(error) => {
                    let key = key.clone();
                    left_out.push(KeyFailure { key, error });
                    // What is missing cannot be made up by the keys after it.
                    if left_out.len() > self.keys.len() - self.needed {
                        break;
                    }
                    continue;
                }
            };
            let mut wrapped = vec![wrapped_key(key, made.cipher)];
            let others = self.keys[index + 1..].iter();
            let others = others.map(|key| self.wrap(key, &made.plain, &aad));
            for result in join_all(others).await {
                match result {
                    Ok(key) => wrapped.push(key),
                    Err(failure) => left_out.push(failure),
                }
            }
            if wrapped.len() < self.needed {
                break;
            }
            return Ok(NewDataKey {
                data_key: made.plain,
                wrapped,
                left_out,
            });
        }
        let needed = self.needed;
        let count = self.keys.len();
        Err(format!(
            "the data key must be wrapped by {needed} of {count} keys, and that failed: {}",
            listed(&left_out)
        )
        .into())
    }

    async fn wrap(
        &self,
        key: &KmsKey,
        data_key: &SecretBytes,
        aad: &str,
    ) -> Result<WrappedKey, KeyFailure> {
        let wrapped = self
            .kms
            .encrypt_data_key(
                &self.caller(key),
                &key.key_id,
                data_key,
                Some(aad),
                deadline(),
            )
            .await;
        match wrapped {
            Ok(ciphertext) => Ok(wrapped_key(key, ciphertext)),
            Err(error) => Err(KeyFailure {
                key: key.clone(),
                error,
            }),
        }
    }

    fn caller(&self, key: &KmsKey) -> Caller {
        Caller {
            region: key.region.clone(),
            project: key.project.clone(),
            credentials: self.credentials.clone(),
            turn: Turn::default(),
        }
    }
}

impl KeyProvider for KmsKeys {
    async fn generate(
        &self,
        context: &EncryptionContext,
    ) -> Result<(SecretBytes, Vec<WrappedKey>), KeyError> {
        let made = self.make(context).await?;
        Ok((made.data_key, made.wrapped))
    }

    /// At most one call for each of these keys.
    async fn unwrap(
        &self,
        candidates: &[WrappedKey],
        context: &EncryptionContext,
    ) -> Result<SecretBytes, KeyError> {
        let aad = context.binding();
        let mut failed = Vec::new();
        for key in &self.keys {
            let Some(wrapped) = candidates.iter().find(|wrapped| key.is_of(wrapped)) else {
                continue;
            };
            let unwrapped = self
                .kms
                .decrypt_data_key(
                    &self.caller(key),
                    &key.key_id,
                    &wrapped.ciphertext,
                    DATA_KEY_LEN,
                    Some(&aad),
                    deadline(),
                )
                .await;
            match unwrapped {
                Ok(data_key) => return Ok(data_key),
                Err(error) => failed.push(KeyFailure {
                    key: key.clone(),
                    error,
                }),
            }
        }
        if failed.is_empty() {
            let of_message = candidates.iter().map(|key| {
                let info = String::from_utf8_lossy(&key.info);
                escaped(&format!("{} {info}", key.provider))
            });
            let of_message = of_message.collect::<Vec<_>>().join(", ");
            return Err(format!(
                "none of the given keys opens the message, which is encrypted with: {of_message}"
            )
            .into());
        }
        Err(format!("no key opens the message: {}", listed(&failed)).into())
    }
}

fn deadline() -> Instant {
    Instant::now() + REGION_TIMEOUT
}

fn wrapped_key(key: &KmsKey, ciphertext: Vec<u8>) -> WrappedKey {
    WrappedKey {
        provider: PROVIDER.to_owned(),
        info: key.info(),
        ciphertext,
    }
}

/// Failures in one line.
fn listed(failures: &[KeyFailure]) -> String {
    let each = failures
        .iter()
        .map(|failure| format!("{}: {}", failure.key, failure.error));
    each.collect::<Vec<_>>().join("; ")
}
