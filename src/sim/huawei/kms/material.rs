//! The material of keys, and what can be done with it.

use std::fmt;

use data_encoding::BASE64;
use getrandom::SysRng;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use ring::rand::{SecureRandom, SystemRandom};
use rsa::Generate;
use rsa::traits::PublicKeyParts;
use serde::{Deserialize, Serialize, Serializer, ser};

use crate::util::secret_bytes::SecretBytes;

/// A kind of key that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::huawei) enum KeySpec {
    Aes256,
    Rsa(usize),
    EcP256,
    EcP384,
}

impl KeySpec {
    pub(super) const ALL: [Self; 6] = [
        Self::Aes256,
        Self::Rsa(2048),
        Self::Rsa(3072),
        Self::Rsa(4096),
        Self::EcP256,
        Self::EcP384,
    ];

    /// KMS's name.
    pub(super) fn name(self) -> String {
        match self {
            Self::Aes256 => "AES_256".to_owned(),
            Self::Rsa(bits) => format!("RSA_{bits}"),
            Self::EcP256 => "EC_P256".to_owned(),
            Self::EcP384 => "EC_P384".to_owned(),
        }
    }

    pub(super) fn is_symmetric(self) -> bool {
        self == Self::Aes256
    }
}

/// The material of one key.
#[derive(Deserialize)]
#[serde(try_from = "StoredMaterial")]
pub(in crate::sim::huawei) enum KeyMaterial {
    Aes256(SecretBytes),
    Rsa(Box<rsa::PrivateKey>),
    EcP256(p256::ecdsa::SigningKey),
    EcP384(p384::ecdsa::SigningKey),
}

/// Material in the state file: Base64 of the AES key, or of the PKCS #8 of another.
#[derive(Serialize, Deserialize)]
struct StoredMaterial {
    spec: String,
    key: String,
}

impl KeyMaterial {
    /// Makes a new key. Takes seconds for large RSA keys.
    pub(super) fn generate(spec: KeySpec) -> Option<Self> {
        Some(match spec {
            KeySpec::Aes256 => Self::Aes256(random(32)?),
            KeySpec::Rsa(bits) => {
                Self::Rsa(Box::new(rsa::PrivateKey::new(&mut SysRng, bits).ok()?))
            }
            KeySpec::EcP256 => Self::EcP256(p256::ecdsa::SigningKey::try_generate().ok()?),
            KeySpec::EcP384 => Self::EcP384(p384::ecdsa::SigningKey::try_generate().ok()?),
        })
    }

    pub(super) fn spec(&self) -> KeySpec {
        match self {
            Self::Aes256(_) => KeySpec::Aes256,
            Self::Rsa(key) => KeySpec::Rsa(8 * key.size()),
            Self::EcP256(_) => KeySpec::EcP256,
            Self::EcP384(_) => KeySpec::EcP384,
        }
    }

    /// The public key as PEM, if the key has one.
    pub(super) fn public_key(&self) -> Option<String> {
        match self {
            Self::Aes256(_) => None,
            Self::Rsa(key) => key.to_public_key().to_public_key_pem(LineEnding::LF).ok(),
            Self::EcP256(key) => key.verifying_key().to_public_key_pem(LineEnding::LF).ok(),
            Self::EcP384(key) => key.verifying_key().to_public_key_pem(LineEnding::LF).ok(),
        }
    }

    fn encoded(&self) -> Option<Vec<u8>> {
        let der = match self {
            Self::Aes256(key) => return Some(key.expose().to_vec()),
            Self::Rsa(key) => key.to_pkcs8_der().ok()?,
            Self::EcP256(key) => key.to_pkcs8_der().ok()?,
            Self::EcP384(key) => key.to_pkcs8_der().ok()?,
        };
        Some(der.as_bytes().to_vec())
    }

    fn decoded(spec: &str, bytes: Vec<u8>) -> Option<Self> {
        let spec = KeySpec::ALL.into_iter().find(|one| one.name() == spec)?;
        Some(match spec {
            KeySpec::Aes256 if bytes.len() == 32 => Self::Aes256(SecretBytes::new(bytes)),
            KeySpec::Aes256 => return None,
            KeySpec::Rsa(_) => Self::Rsa(Box::new(rsa::PrivateKey::from_pkcs8_der(&bytes).ok()?)),
            KeySpec::EcP256 => Self::EcP256(p256::ecdsa::SigningKey::from_pkcs8_der(&bytes).ok()?),
            KeySpec::EcP384 => Self::EcP384(p384::ecdsa::SigningKey::from_pkcs8_der(&bytes).ok()?),
        })
    }
}

/// Random bytes.
pub(super) fn random(length: usize) -> Option<SecretBytes> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(SecretBytes::new(bytes))
}

impl Serialize for KeyMaterial {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.encoded();
        let bytes = bytes.ok_or_else(|| ser::Error::custom("a key cannot be written"))?;
        let stored = StoredMaterial {
            spec: self.spec().name(),
            key: BASE64.encode(&bytes),
        };
        stored.serialize(to)
    }
}

impl TryFrom<StoredMaterial> for KeyMaterial {
    type Error = &'static str;

    fn try_from(stored: StoredMaterial) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(stored.key.as_bytes());
        let key = bytes
            .ok()
            .and_then(|bytes| Self::decoded(&stored.spec, bytes));
        key.ok_or("a key cannot be read")
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec().name())
    }
}
