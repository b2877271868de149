//! Keys in memory, instead of a key service.

use dew_provider::envelope::{EncryptionContext, KeyError, KeyProvider, WrappedKey};
use dew_provider::util::secret_bytes::SecretBytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Keys by their information, such as `cn-north-4/KEY-ID`, with the key itself. A wrapped key is IV, ciphertext and
/// tag of AES-256-GCM, with the context's binding as additional data; `interoperable.py` does the same.
#[derive(Clone)]
pub(crate) struct StaticKeys(pub(crate) Vec<(String, [u8; 32])>);

impl StaticKeys {
    pub(crate) fn two() -> Self {
        Self(vec![
            ("cn-north-4/first".to_owned(), [1; 32]),
            ("ap-southeast-1/second".to_owned(), [2; 32]),
        ])
    }

    fn key(bytes: &[u8; 32]) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).unwrap())
    }
}

impl KeyProvider for StaticKeys {
    async fn generate(
        &self,
        context: &EncryptionContext,
    ) -> Result<(SecretBytes, Vec<WrappedKey>), KeyError> {
        let random = SystemRandom::new();
        let mut data_key = vec![0; 32];
        random.fill(&mut data_key).unwrap();
        let wrapped = self.0.iter().map(|(info, master)| {
            let mut iv = [0; 12];
            random.fill(&mut iv).unwrap();
            let mut sealed = data_key.clone();
            let nonce = Nonce::assume_unique_for_key(iv);
            Self::key(master)
                .seal_in_place_append_tag(nonce, Aad::from(context.binding()), &mut sealed)
                .unwrap();
            WrappedKey {
                provider: "huawei-kms".to_owned(),
                info: info.clone().into_bytes(),
                ciphertext: [iv.as_slice(), &sealed].concat(),
            }
        });
        let wrapped = wrapped.collect();
        Ok((SecretBytes::new(data_key), wrapped))
    }

    async fn unwrap(
        &self,
        candidates: &[WrappedKey],
        context: &EncryptionContext,
    ) -> Result<SecretBytes, KeyError> {
        for (info, master) in &self.0 {
            for candidate in candidates.iter().filter(|key| key.info == info.as_bytes()) {
                let Some((iv, sealed)) = candidate.ciphertext.split_first_chunk() else {
                    continue;
                };
                let mut sealed = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*iv);
                let aad = Aad::from(context.binding());
                if let Ok(key) = Self::key(master).open_in_place(nonce, aad, &mut sealed) {
                    return Ok(SecretBytes::new(key.to_vec()));
                }
            }
        }
        Err("no key opens it".into())
    }
}
