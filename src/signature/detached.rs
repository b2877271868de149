//! The file in which a signature is kept.

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::SignatureError;
use crate::cloud::SigningAlgorithm;
use crate::util::json::describe;

/// Largest signature file in bytes.
pub const MAX_SIGNATURE_FILE: usize = 16 * 1024;

/// Longest signature in bytes: RSA with 8,192 bits.
const MAX_SIGNATURE: usize = 1024;

const VERSION: u32 = 1;

/// A signature beside the file that it signs.
///
/// As JSON: `version` (1), `algorithm` (KMS's name), `key` (`REGION/KEY-ID`), `digest` (hex), `signature` (Base64), `time`
/// (RFC 3339). `key` and `time` are not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedSignature {
    /// How it was made.
    pub algorithm: SigningAlgorithm,
    /// The key of KMS that made it: `REGION/KEY-ID`.
    pub key: String,
    /// Digest of the file.
    pub digest: Vec<u8>,
    /// The signature; DER for ECDSA.
    pub signature: Vec<u8>,
    /// When it was made, by the signer's clock.
    pub time: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureFile {
    version: u32,
    algorithm: String,
    key: String,
    digest: String,
    signature: String,
    time: String,
}

impl DetachedSignature {
    /// Parses a signature file.
    ///
    /// # Errors
    /// [`SignatureError::SignatureFile`] names the field.
    pub fn parse(json: &[u8]) -> Result<Self, SignatureError> {
        let invalid = |problem: String| SignatureError::SignatureFile(problem);
        if json.len() > MAX_SIGNATURE_FILE {
            let length = json.len();
            return Err(invalid(format!(
                "it has {length} bytes (limit {MAX_SIGNATURE_FILE})"
            )));
        }
        let file: SignatureFile = serde_json::from_slice(json).map_err(|error| {
            let fields =
                "expected an object with version, algorithm, key, digest, signature and time";
            invalid(describe(&error, fields))
        })?;
        if file.version != VERSION {
            let version = file.version;
            return Err(invalid(format!(
                "version {version} is unknown; this release reads {VERSION}"
            )));
        }
        let algorithm: SigningAlgorithm = file.algorithm.parse().map_err(invalid)?;
        let digest = HEXLOWER.decode(file.digest.as_bytes()).ok();
        let digest = digest.filter(|digest| digest.len() == algorithm.digest_len());
        let digest = digest.ok_or_else(|| {
            let digits = algorithm.digest_len() * 2;
            invalid(format!(
                "digest must have {digits} lower-case hexadecimal digits for {algorithm}"
            ))
        })?;
        let signature = BASE64.decode(file.signature.as_bytes()).ok();
        let signature = signature.filter(|bytes| (1..=MAX_SIGNATURE).contains(&bytes.len()));
        Ok(Self {
            algorithm,
            key: file.key,
            digest,
            signature: signature.ok_or_else(|| {
                invalid(format!(
                    "signature must be Base64 of 1 to {MAX_SIGNATURE} bytes"
                ))
            })?,
            time: file
                .time
                .parse()
                .map_err(|_| invalid("time must be like 2026-01-02T03:04:05Z".to_owned()))?,
        })
    }

    /// The signature file: indented JSON with a newline at its end.
    ///
    /// # Errors
    /// None that is known; JSON of texts can always be written.
    pub fn to_json(&self) -> Result<String, SignatureError> {
        let file = SignatureFile {
            version: VERSION,
            algorithm: self.algorithm.to_string(),
            key: self.key.clone(),
            digest: HEXLOWER.encode(&self.digest),
            signature: BASE64.encode(&self.signature),
            time: self.time.to_string(),
        };
        let json = serde_json::to_string_pretty(&file);
        let json = json.map_err(|error| SignatureError::SignatureFile(error.to_string()))?;
        Ok(json + "\n")
    }

    /// Compares the digest of a file. The signature itself is not checked.
    ///
    /// # Errors
    /// [`SignatureError::FileChanged`].
    pub fn check_digest(&self, digest: &[u8]) -> Result<(), SignatureError> {
        if digest == self.digest {
            return Ok(());
        }
        Err(SignatureError::FileChanged {
            found: HEXLOWER.encode(digest),
            signed: HEXLOWER.encode(&self.digest),
        })
    }
}
