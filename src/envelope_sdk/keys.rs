//! Where data keys come from.

use std::error::Error;
use std::fmt;
use std::future::Future;

use super::algorithm::SdkAlgorithm;
use super::cipher::{Cipher, IV, TAG, random};
use super::context::SdkContext;
use super::error::SdkError;
use super::header::SdkHeader;
use super::wrapped::{LOCAL_PROVIDER, SdkKeyInfo, WrappedDek};
use crate::util::secret_bytes::SecretBytes;

/// Why there is no data key.
pub type KeyError = Box<dyn Error + Send + Sync>;

/// A new data key and its wrapped forms.
#[derive(Debug)]
pub struct SdkDataKey {
    /// The data key.
    pub dek: SecretBytes,
    /// The data key, wrapped by each key.
    pub wrapped: Vec<WrappedDek>,
    /// Keys that did not wrap it, with the reason. They will not open the message.
    pub left_out: Vec<String>,
}

/// Makes and unwraps data keys: [`SdkKmsKeys`](super::SdkKmsKeys) or [`LocalKeys`].
pub trait DataKeys {
    /// A new data key for a message with this context.
    fn wrap(
        &self,
        algorithm: SdkAlgorithm,
        context: &SdkContext,
    ) -> impl Future<Output = Result<SdkDataKey, KeyError>> + Send;

    /// The data key of a message.
    ///
    /// A header is a stranger's text until its tag is checked with the data key: an implementation tries only
    /// keys that it was given, at their own endpoints, and bounds its calls (a header may list 127 keys). The
    /// wrapped keys are in no particular order.
    fn unwrap(
        &self,
        header: &SdkHeader,
    ) -> impl Future<Output = Result<SecretBytes, KeyError>> + Send;
}

/// Keys of the SDK's `RAW_AES` keyring: AES keys in files, without KMS. The data key is wrapped by AES-GCM
/// with the context as AAD.
pub struct LocalKeys(Vec<Cipher>);

impl LocalKeys {
    /// Keys of 16 or 32 bytes, whatever the algorithm of the messages.
    pub fn new(keys: &[SecretBytes]) -> Result<Self, KeyError> {
        let ciphers = keys.iter().map(|key| {
            let algorithm = match key.len() {
                16 => SdkAlgorithm::Aes128Gcm,
                32 => SdkAlgorithm::Aes256Gcm,
                length => {
                    return Err(format!(
                        "a local key has {length} bytes instead of 16 or 32"
                    ));
                }
            };
            Cipher::new(algorithm, key.expose()).map_err(|error| error.to_string())
        });
        let ciphers: Vec<_> = ciphers.collect::<Result<_, _>>()?;
        if ciphers.is_empty() {
            return Err("no local key is given".into());
        }
        Ok(Self(ciphers))
    }

    fn wrap_by(cipher: &Cipher, dek: &[u8], context: &SdkContext) -> Result<WrappedDek, SdkError> {
        let iv = random::<IV>()?;
        let mut sealed = dek.to_vec();
        let tag = cipher.seal(iv, context.bytes(), &mut sealed, "a data key")?;
        Ok(WrappedDek {
            provider: LOCAL_PROVIDER.to_owned(),
            info: SdkKeyInfo::Unnamed,
            wrapped: [&iv[..], &sealed, &tag].concat(),
        })
    }

    /// The data key if this key wrapped it.
    fn unwrap_by(cipher: &Cipher, wrapped: &WrappedDek, header: &SdkHeader) -> Option<SecretBytes> {
        let (iv, sealed) = wrapped.wrapped.split_first_chunk::<IV>()?;
        let expected = header.algorithm().key_length() + TAG;
        if wrapped.provider != LOCAL_PROVIDER || sealed.len() != expected {
            return None;
        }
        let mut sealed = zeroize::Zeroizing::new(sealed.to_vec());
        let dek = cipher.open(*iv, header.context().bytes(), &mut sealed)?;
        Some(SecretBytes::new(dek.to_vec()))
    }
}

impl DataKeys for LocalKeys {
    async fn wrap(
        &self,
        algorithm: SdkAlgorithm,
        context: &SdkContext,
    ) -> Result<SdkDataKey, KeyError> {
        let bytes = random::<32>()?;
        let dek = SecretBytes::new(bytes[..algorithm.key_length()].to_vec());
        let wrapped = self.0.iter();
        let wrapped = wrapped.map(|cipher| Self::wrap_by(cipher, dek.expose(), context));
        Ok(SdkDataKey {
            wrapped: wrapped.collect::<Result<_, _>>()?,
            dek,
            left_out: Vec::new(),
        })
    }

    async fn unwrap(&self, header: &SdkHeader) -> Result<SecretBytes, KeyError> {
        let pairs = header.wrapped().iter();
        let mut pairs = pairs.flat_map(|key| self.0.iter().map(move |cipher| (cipher, key)));
        let dek = pairs.find_map(|(cipher, key)| Self::unwrap_by(cipher, key, header));
        dek.ok_or_else(|| {
            let keys = header.wrapped().len();
            format!("none of the local keys opens one of the message's {keys} wrapped data keys")
                .into()
        })
    }
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKeys(<{} keys>)", self.0.len())
    }
}
