//! The algorithms with which KMS signs.

use std::fmt;
use std::str::FromStr;

/// An algorithm with which KMS signs a digest. Source: API reference of KMS, `sign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PSS with SHA-256.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512.
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// ECDSA with SHA-256. The signature is DER.
    EcdsaSha256,
    /// ECDSA with SHA-384. The signature is DER.
    EcdsaSha384,
    /// ECDSA with SHA-512. The signature is DER.
    EcdsaSha512,
    /// SM2 with SM3.
    Sm2Sm3,
    /// Ed25519 over SHA-512 ("prehashed").
    Ed25519PhSha512,
}

impl SigningAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 11] = [
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Sm2Sm3,
        Self::Ed25519PhSha512,
    ];

    /// KMS's name, such as `RSASSA_PSS_SHA_256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RsaPssSha256 => "RSASSA_PSS_SHA_256",
            Self::RsaPssSha384 => "RSASSA_PSS_SHA_384",
            Self::RsaPssSha512 => "RSASSA_PSS_SHA_512",
            Self::RsaPkcs1Sha256 => "RSASSA_PKCS1_V1_5_SHA_256",
            Self::RsaPkcs1Sha384 => "RSASSA_PKCS1_V1_5_SHA_384",
            Self::RsaPkcs1Sha512 => "RSASSA_PKCS1_V1_5_SHA_512",
            Self::EcdsaSha256 => "ECDSA_SHA_256",
            Self::EcdsaSha384 => "ECDSA_SHA_384",
            Self::EcdsaSha512 => "ECDSA_SHA_512",
            Self::Sm2Sm3 => "SM2DSA_SM3",
            Self::Ed25519PhSha512 => "ED25519_PH_SHA_512",
        }
    }

    /// Length in bytes of the digest that is signed.
    pub fn digest_len(self) -> usize {
        match self {
            Self::RsaPssSha256 | Self::RsaPkcs1Sha256 | Self::EcdsaSha256 | Self::Sm2Sm3 => 32,
            Self::RsaPssSha384 | Self::RsaPkcs1Sha384 | Self::EcdsaSha384 => 48,
            Self::RsaPssSha512
            | Self::RsaPkcs1Sha512
            | Self::EcdsaSha512
            | Self::Ed25519PhSha512 => 64,
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SigningAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown signing algorithm; expected one of {names}")
        })
    }
}
