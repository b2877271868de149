//! Data keys from KMS, in one region or several.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::algorithm::SdkAlgorithm;
use super::context::SdkContext;
use super::header::SdkHeader;
use super::keys::{DataKeys, KeyError, SdkDataKey};
use super::wrapped::{Discovery, KMS_PROVIDER, SdkKeyInfo, WrappedDek};
use crate::cloud::{ApiError, Caller, ErrorKind, Kms};
use crate::util::secret_bytes::SecretBytes;
use crate::util::text::joined;

/// Calls to unwrap one message's data key. A stranger's header may list 127 wrapped keys, and an account has 20
/// calls a second.
const MAX_CALLS: usize = 16;

/// A key of KMS, and who uses it where.
#[derive(Clone, Debug)]
pub struct SdkKmsKey {
    /// Credentials, region and project.
    pub caller: Caller,
    /// ID of the key.
    pub key_id: String,
}

impl SdkKmsKey {
    fn failed(&self, error: &ApiError) -> String {
        format!("{} in {}: {error}", self.key_id, self.caller.region)
    }
}

/// Data keys that KMS makes and unwraps, by the calls of the official SDK.
#[derive(Clone, Debug)]
pub struct SdkKmsKeys {
    kms: Kms,
    keys: Vec<SdkKmsKey>,
    needed: usize,
    call_timeout: Duration,
}

impl SdkKmsKeys {
    /// The keys that may be used, nearest first, and how long a call may take with its retries. No other key
    /// and no endpoint of a message is ever used.
    pub fn new(kms: Kms, keys: Vec<SdkKmsKey>, call_timeout: Duration) -> Self {
        Self {
            kms,
            needed: keys.len(),
            keys,
            call_timeout,
        }
    }

    /// Lets [`SdkKmsKeys::wrap`](DataKeys::wrap) succeed when this many keys wrapped the data key. By default all
    /// must, as with the SDK.
    pub fn with_needed(self, needed: usize) -> Self {
        let needed = needed.clamp(1, self.keys.len().max(1));
        Self { needed, ..self }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.call_timeout
    }

    /// A new data key of the first key that answers, and the keys that failed.
    async fn create(&self, algorithm: SdkAlgorithm) -> (Option<SecretBytes>, Vec<String>) {
        let bits = algorithm.key_length() as u32 * 8;
        let mut failed = Vec::new();
        for key in &self.keys {
            let created =
                self.kms
                    .create_data_key(&key.caller, &key.key_id, bits, None, self.deadline());
            match created.await {
                Ok(created) => return (Some(created.plain), failed),
                Err(error) => failed.push(key.failed(&error)),
            }
        }
        (None, failed)
    }

    async fn wrap_by(&self, key: &SdkKmsKey, dek: &SecretBytes) -> Result<WrappedDek, String> {
        // No additional authenticated data: the SDK sends none when it unwraps.
        let wrapped =
            self.kms
                .encrypt_data_key(&key.caller, &key.key_id, dek, None, self.deadline());
        Ok(WrappedDek {
            provider: KMS_PROVIDER.to_owned(),
            // The key's name saves a reader the calls to find it. The SDK's other keyrings do not look at it.
            info: SdkKeyInfo::Discovery(Discovery {
                key_id: key.key_id.clone(),
                region: key.caller.region.to_string(),
                project: key.caller.project.clone().unwrap_or_default(),
                endpoint: String::new(),
            }),
            wrapped: wrapped.await.map_err(|error| key.failed(&error))?,
        })
    }
}

impl DataKeys for SdkKmsKeys {
    async fn wrap(&self, algorithm: SdkAlgorithm, _: &SdkContext) -> Result<SdkDataKey, KeyError> {
        let (dek, failed) = self.create(algorithm).await;
        let failure = |failed: Vec<String>| -> KeyError {
            let keys = self.keys.len();
            let failed = joined(failed, "; ", 8, 4096);
            format!(
                "the data key was not wrapped by enough keys ({keys} given, {} needed): {failed}",
                self.needed
            )
            .into()
        };
        let Some(dek) = dek.filter(|_| self.keys.len() - failed.len() >= self.needed) else {
            return Err(failure(failed));
        };
        // Keys that could not make a data key would not wrap one either.
        let keys = self.keys[failed.len()..].iter();
        let mut left_out = failed;
        let mut wrapped = Vec::new();
        for result in join_all(keys.map(|key| self.wrap_by(key, &dek))).await {
            match result {
                Ok(key) => wrapped.push(key),
                Err(error) => left_out.push(error),
            }
        }
        if wrapped.len() < self.needed || wrapped.is_empty() {
            return Err(failure(left_out));
        }
        Ok(SdkDataKey {
            dek,
            wrapped,
            left_out,
        })
    }

    async fn unwrap(&self, header: &SdkHeader) -> Result<SecretBytes, KeyError> {
        let wrapped = header.wrapped().iter();
        let wrapped: Vec<&WrappedDek> =
            wrapped.filter(|key| key.provider == KMS_PROVIDER).collect();
        if wrapped.is_empty() {
            return Err(
                "the message's data key was not wrapped by KMS: it needs a local key".into(),
            );
        }
        let mut calls = 0;
        let mut failed = Vec::new();
        'keys: for key in &self.keys {
            let may_fit = |wrapped: &&&WrappedDek| match &wrapped.info {
                SdkKeyInfo::Unnamed => true,
                SdkKeyInfo::Discovery(named) => named.key_id.eq_ignore_ascii_case(&key.key_id),
            };
            for candidate in wrapped.iter().filter(may_fit) {
                if calls == MAX_CALLS {
                    failed.insert(
                        0,
                        format!("{MAX_CALLS} calls are the limit for one message"),
                    );
                    break 'keys;
                }
                calls += 1;
                let dek = self.kms.decrypt_data_key(
                    &key.caller,
                    &key.key_id,
                    &candidate.wrapped,
                    header.algorithm().key_length(),
                    None,
                    self.deadline(),
                );
                match dek.await {
                    Ok(dek) if header.is_key(&dek) => return Ok(dek),
                    Ok(_) => failed.push(format!(
                        "{} in {}: the data key is another message's, or the header was changed",
                        key.key_id, key.caller.region
                    )),
                    Err(error) => {
                        failed.push(key.failed(&error));
                        // Another wrapped key may be this key's; a region that is down, or a key that may not
                        // be used, unwraps none.
                        if error.kind != ErrorKind::Invalid {
                            break;
                        }
                    }
                }
            }
        }
        if failed.is_empty() {
            failed.push("the message names other keys".to_owned());
        }
        let failed = joined(failed, "; ", 8, 4096);
        Err(format!("none of the given keys unwraps the message's data key: {failed}").into())
    }
}
