//! The client of KMS, one method per operation.

use http::Method;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use tokio::time::Instant;

use super::answer::{self, HiddenText, text};
use super::request::{
    base64, body, check_aad, check_bits, check_data, check_data_key, check_key_id, hex, with_digest,
};
use super::signing::SigningAlgorithm;
use super::types::{DataKey, EncryptionAlgorithm, KeyInfo, KeyStatus, NewKey};
use crate::cloud::call::{Call, Signer};
use crate::cloud::client::{Caller, Cloud};
use crate::cloud::error::{ApiError, ErrorKind};
use crate::cloud::transport::body::json as parse;
use crate::util::json::null_as_default;
use crate::util::secret_bytes::SecretBytes;

/// An account has some hundred keys, so a list with more pages than this is endless.
const MAX_PAGES: usize = 100;

/// Keys on a page of a list.
const PAGE: &str = "100";

/// An operation: its name in Huawei's API reference, and the last segment of its path.
#[derive(Clone, Copy)]
struct Operation {
    name: &'static str,
    path: &'static str,
    /// Whether repeating it changes nothing. That is so for all that only use a key: a data key or a signature
    /// that nobody received does no harm.
    idempotent: bool,
}

const fn operation(name: &'static str, path: &'static str) -> Operation {
    Operation {
        name,
        path,
        idempotent: true,
    }
}

#[derive(Deserialize)]
struct OneKey<T> {
    key_info: T,
}

/// The client of KMS. Every call ends by its `deadline`, retries included.
///
/// `key_id` is always the ID of a key in the caller's region and project. `aad` is additional authenticated
/// data, 1 to 128 characters: who decrypts must give the same.
#[derive(Clone, Debug)]
pub struct Kms(Cloud);

impl Kms {
    /// KMS through `cloud`, within its rate limit.
    pub fn new(cloud: Cloud) -> Self {
        Self(cloud)
    }

    /// Creates a key, and returns its ID.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a bad alias or a kind that the service does not offer.
    pub async fn create_key(
        &self,
        caller: &Caller,
        key: &NewKey,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct NewKeyId {
            key_id: String,
        }
        let operation = Operation {
            // A second key is another key.
            idempotent: false,
            ..operation("CreateKey", "create-key")
        };
        let mut fields = vec![("key_alias", key.alias.as_str())];
        let optional = [
            ("key_spec", &key.spec),
            ("key_usage", &key.usage),
            ("key_description", &key.description),
        ];
        for (name, value) in optional {
            fields.extend(value.as_deref().map(|value| (name, value)));
        }
        self.call(caller, operation, &fields, deadline, |bytes| {
            let made = parse::<OneKey<NewKeyId>>(bytes)?.key_info.key_id;
            check_key_id(operation.name, &made).map_err(|_| "its key ID is no UUID")?;
            Ok(made)
        })
        .await
    }

    /// Lists the keys of the project, of every kind and state.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Vec<KeyInfo>, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(deserialize_with = "null_as_default")]
            key_details: Vec<KeyInfo>,
            #[serde(default, deserialize_with = "text")]
            next_marker: String,
            #[serde(default, deserialize_with = "text")]
            truncated: String,
        }
        let operation = operation("ListKeys", "list-keys");
        let mut keys = Vec::new();
        let mut marker = String::new();
        for _ in 0..MAX_PAGES {
            let mut fields = vec![("limit", PAGE), ("key_spec", "ALL")];
            if !marker.is_empty() {
                fields.push(("marker", marker.as_str()));
            }
            let page = self
                .call(caller, operation, &fields, deadline, parse::<Page>)
                .await?;
            let got = page.key_details.len();
            keys.extend(page.key_details);
            let next = page.next_marker;
            if got == 0 || page.truncated != "true" || next.is_empty() || next == marker {
                return Ok(keys);
            }
            marker = next;
        }
        Err(ApiError::local(
            operation.name,
            ErrorKind::Malformed,
            format!("the list does not end after {MAX_PAGES} pages"),
        ))
    }

    /// Returns what KMS says of a key.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`] and those of any call.
    pub async fn describe_key(
        &self,
        caller: &Caller,
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyInfo, ApiError> {
        let operation = operation("ListKeyDetail", "describe-key");
        check_key_id(operation.name, key_id)?;
        let fields = [("key_id", key_id)];
        self.call(caller, operation, &fields, deadline, |bytes| {
            let key = parse::<OneKey<KeyInfo>>(bytes)?.key_info;
            same_key(&key.key_id, key_id)?;
            Ok(key)
        })
        .await
    }

    /// Enables a key.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], also if its deletion is scheduled, and those of any call.
    pub async fn enable_key(
        &self,
        caller: &Caller,
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        let operation = operation("EnableKey", "enable-key");
        self.switch(caller, operation, key_id, deadline).await
    }

    /// Disables a key. Nothing that it encrypted can be decrypted until it is enabled again.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], also if its deletion is scheduled, and those of any call.
    pub async fn disable_key(
        &self,
        caller: &Caller,
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        let operation = operation("DisableKey", "disable-key");
        self.switch(caller, operation, key_id, deadline).await
    }

    /// Schedules the deletion of a key in 7 to 1096 days. Until then it cannot be used.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], [`ErrorKind::Invalid`], and those of any call.
    pub async fn schedule_key_deletion(
        &self,
        caller: &Caller,
        key_id: &str,
        days: u32,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        let operation = operation("DeleteKey", "schedule-key-deletion");
        check_key_id(operation.name, key_id)?;
        if !(7..=1096).contains(&days) {
            let text = format!("{days} days: KMS deletes a key after 7 to 1096 days");
            return Err(ApiError::local(operation.name, ErrorKind::Invalid, text));
        }
        let days = days.to_string();
        let fields = [("key_id", key_id), ("pending_days", &days)];
        let result = self.status(caller, operation, &fields, key_id, deadline);
        match result.await {
            // An earlier attempt scheduled it, and its response was lost.
            Err(error) if error.attempts > 1 && error.code.as_deref() == Some("KMS.0210") => {
                Ok(KeyStatus {
                    key_id: key_id.to_owned(),
                    key_state: "4".to_owned(),
                })
            }
            result => result,
        }
    }

    /// Cancels the deletion of a key, which is disabled then.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], [`ErrorKind::Invalid`] if no deletion is scheduled, and those of any call.
    pub async fn cancel_key_deletion(
        &self,
        caller: &Caller,
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        let operation = operation("CancelKeyDeletion", "cancel-key-deletion");
        check_key_id(operation.name, key_id)?;
        let fields = [("key_id", key_id)];
        self.status(caller, operation, &fields, key_id, deadline)
            .await
    }

    /// Encrypts 1 to 4096 bytes of text with a symmetric key. Returns the cipher text in Base64, which also says
    /// which key it needs.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a text that is too long, [`ErrorKind::KeyUnavailable`], and those of any call.
    pub async fn encrypt_data(
        &self,
        caller: &Caller,
        key_id: &str,
        plain: &SecretBytes,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let algorithm = EncryptionAlgorithm::Symmetric;
        self.encrypt_data_with(caller, key_id, algorithm, plain, aad, deadline)
            .await
    }

    /// Like [`Kms::encrypt_data`], with a key of any kind. An RSA key takes less text.
    ///
    /// # Errors
    /// Those of [`Kms::encrypt_data`].
    pub async fn encrypt_data_with(
        &self,
        caller: &Caller,
        key_id: &str,
        algorithm: EncryptionAlgorithm,
        plain: &SecretBytes,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Encrypted {
            key_id: String,
            cipher_text: String,
        }
        let operation = operation("EncryptData", "encrypt-data");
        check_key_id(operation.name, key_id)?;
        check_aad(operation.name, aad)?;
        let mut fields = vec![
            ("key_id", key_id),
            ("plain_text", check_data(operation.name, plain)?),
        ];
        push_data_fields(&mut fields, algorithm, aad);
        self.call(caller, operation, &fields, deadline, |bytes| {
            let encrypted = parse::<Encrypted>(bytes)?;
            same_key(&encrypted.key_id, key_id)?;
            answer::base64(&encrypted.cipher_text, "cipher_text")?;
            Ok(encrypted.cipher_text)
        })
        .await
    }

    /// Decrypts a cipher text of [`Kms::encrypt_data`]. With `key_id`, the text is returned only if that key
    /// encrypted it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a cipher text that was changed or has other `aad`, or is of another key;
    /// [`ErrorKind::KeyUnavailable`], and those of any call.
    pub async fn decrypt_data(
        &self,
        caller: &Caller,
        key_id: Option<&str>,
        cipher_text: &str,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<SecretBytes, ApiError> {
        let algorithm = EncryptionAlgorithm::Symmetric;
        self.decrypt_data_with(caller, key_id, algorithm, cipher_text, aad, deadline)
            .await
    }

    /// Like [`Kms::decrypt_data`], with a key of any kind. An RSA key must be named.
    ///
    /// # Errors
    /// Those of [`Kms::decrypt_data`].
    pub async fn decrypt_data_with(
        &self,
        caller: &Caller,
        key_id: Option<&str>,
        algorithm: EncryptionAlgorithm,
        cipher_text: &str,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<SecretBytes, ApiError> {
        #[derive(Deserialize)]
        struct Decrypted {
            key_id: String,
            plain_text: HiddenText,
        }
        let operation = operation("DecryptData", "decrypt-data");
        let invalid = |text: &str| ApiError::local(operation.name, ErrorKind::Invalid, text);
        let cipher_text = cipher_text.trim();
        if answer::base64(cipher_text, "").is_err() {
            return Err(invalid("the cipher text is not Base64"));
        }
        check_aad(operation.name, aad)?;
        let mut fields = vec![("cipher_text", cipher_text)];
        if let Some(key_id) = key_id {
            check_key_id(operation.name, key_id)?;
            fields.push(("key_id", key_id));
        } else if algorithm != EncryptionAlgorithm::Symmetric {
            return Err(invalid("an asymmetric cipher text needs the ID of its key"));
        }
        push_data_fields(&mut fields, algorithm, aad);
        let decrypted = self
            .call(caller, operation, &fields, deadline, parse::<Decrypted>)
            .await?;
        // The service needs no key ID to decrypt, so it may have used another key.
        if key_id.is_some_and(|key_id| key_id != decrypted.key_id) {
            return Err(invalid("another key encrypted the cipher text"));
        }
        Ok(decrypted.plain_text.into_bytes())
    }

    /// Creates a data key of 8 to 8192 bits, a multiple of 8.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], and those of any call.
    pub async fn create_data_key(
        &self,
        caller: &Caller,
        key_id: &str,
        bits: u32,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<DataKey, ApiError> {
        #[derive(Deserialize)]
        struct Made {
            key_id: String,
            plain_text: HiddenText,
            cipher_text: String,
        }
        let operation = operation("CreateDatakey", "create-datakey");
        let length = bits.to_string();
        let fields = data_key_fields(operation, key_id, bits, &length, aad)?;
        self.call(caller, operation, &fields, deadline, |bytes| {
            let made = parse::<Made>(bytes)?;
            same_key(&made.key_id, key_id)?;
            let plain = made.plain_text.hex("plain_text")?;
            same_length(plain.len(), bits as usize / 8)?;
            Ok(DataKey {
                key_id: made.key_id,
                plain,
                cipher: answer::hex(&made.cipher_text, "cipher_text")?,
            })
        })
        .await
    }

    /// Creates a data key and returns only its cipher text.
    ///
    /// # Errors
    /// Those of [`Kms::create_data_key`].
    pub async fn create_data_key_without_plaintext(
        &self,
        caller: &Caller,
        key_id: &str,
        bits: u32,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        let operation = operation(
            "CreateDatakeyWithoutPlaintext",
            "create-datakey-without-plaintext",
        );
        let length = bits.to_string();
        let fields = data_key_fields(operation, key_id, bits, &length, aad)?;
        self.wrapped(caller, operation, &fields, key_id, deadline)
            .await
    }

    /// Encrypts a data key of 1 to 1024 bytes that was made elsewhere, for example by a key of another region.
    ///
    /// # Errors
    /// Those of [`Kms::create_data_key`].
    pub async fn encrypt_data_key(
        &self,
        caller: &Caller,
        key_id: &str,
        plain: &SecretBytes,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        let operation = operation("EncryptDatakey", "encrypt-datakey");
        check_key_id(operation.name, key_id)?;
        check_data_key(operation.name, plain.len())?;
        check_aad(operation.name, aad)?;
        let (plain_text, length) = (with_digest(plain), plain.len().to_string());
        let mut fields = vec![
            ("key_id", key_id),
            ("plain_text", plain_text.as_str()),
            ("datakey_plain_length", &length),
        ];
        push_aad(&mut fields, aad);
        self.wrapped(caller, operation, &fields, key_id, deadline)
            .await
    }

    /// Decrypts a data key. `plain_len_bytes` is the length of the key itself.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a cipher text that was changed, is of another key or has other `aad`;
    /// [`ErrorKind::KeyUnavailable`], and those of any call.
    pub async fn decrypt_data_key(
        &self,
        caller: &Caller,
        key_id: &str,
        cipher: &[u8],
        plain_len_bytes: usize,
        aad: Option<&str>,
        deadline: Instant,
    ) -> Result<SecretBytes, ApiError> {
        #[derive(Deserialize)]
        struct Decrypted {
            data_key: HiddenText,
            #[serde(default, deserialize_with = "text")]
            datakey_dgst: String,
        }
        let operation = operation("DecryptDatakey", "decrypt-datakey");
        check_key_id(operation.name, key_id)?;
        check_data_key(operation.name, plain_len_bytes)?;
        check_aad(operation.name, aad)?;
        // The official SDK sends the length of the key, and not that of the cipher text.
        let (cipher_text, length) = (hex(cipher), plain_len_bytes.to_string());
        let mut fields = vec![
            ("key_id", key_id),
            ("cipher_text", cipher_text.as_str()),
            ("datakey_cipher_length", &length),
        ];
        push_aad(&mut fields, aad);
        self.call(caller, operation, &fields, deadline, |bytes| {
            let decrypted = parse::<Decrypted>(bytes)?;
            let key = decrypted.data_key.hex("data_key")?;
            same_length(key.len(), plain_len_bytes)?;
            if !decrypted.datakey_dgst.is_empty() {
                let expected = answer::hex(&decrypted.datakey_dgst, "datakey_dgst")?;
                if digest(&SHA256, key.expose()).as_ref() != expected {
                    return Err("datakey_dgst is not the SHA-256 of data_key".to_owned());
                }
            }
            Ok(key)
        })
        .await
    }

    /// Signs a digest. ECDSA signatures are DER.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a digest of the wrong length or an algorithm that the key does not offer;
    /// [`ErrorKind::KeyUnavailable`], and those of any call.
    pub async fn sign(
        &self,
        caller: &Caller,
        key_id: &str,
        algorithm: SigningAlgorithm,
        digest: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        #[derive(Deserialize)]
        struct Signed {
            key_id: String,
            signature: String,
        }
        let operation = operation("Sign", "sign");
        let message = digest_text(operation, key_id, algorithm, digest)?;
        let fields = signing_fields(key_id, &message, algorithm);
        self.call(caller, operation, &fields, deadline, |bytes| {
            let signed = parse::<Signed>(bytes)?;
            same_key(&signed.key_id, key_id)?;
            answer::base64(&signed.signature, "signature")
        })
        .await
    }

    /// Whether a signature of a digest is valid.
    ///
    /// # Errors
    /// Those of [`Kms::sign`].
    pub async fn verify(
        &self,
        caller: &Caller,
        key_id: &str,
        algorithm: SigningAlgorithm,
        digest: &[u8],
        signature: &[u8],
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        #[derive(Deserialize)]
        struct Verified {
            key_id: String,
            #[serde(deserialize_with = "text")]
            signature_valid: String,
        }
        let operation = operation("ValidateSignature", "verify");
        let message = digest_text(operation, key_id, algorithm, digest)?;
        let signature = base64(signature);
        let mut fields = signing_fields(key_id, &message, algorithm).to_vec();
        fields.push(("signature", &signature));
        self.call(caller, operation, &fields, deadline, |bytes| {
            let verified = parse::<Verified>(bytes)?;
            same_key(&verified.key_id, key_id)?;
            match verified.signature_valid.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err("signature_valid is neither true nor false".to_owned()),
            }
        })
        .await
    }

    /// Returns the public key of an asymmetric key, as PEM.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`], [`ErrorKind::Invalid`] for a symmetric key, and those of any call.
    pub async fn public_key(
        &self,
        caller: &Caller,
        key_id: &str,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Shown {
            key_id: String,
            public_key: String,
        }
        let operation = operation("ShowPublicKey", "get-publickey");
        check_key_id(operation.name, key_id)?;
        let fields = [("key_id", key_id)];
        self.call(caller, operation, &fields, deadline, |bytes| {
            let shown = parse::<Shown>(bytes)?;
            same_key(&shown.key_id, key_id)?;
            if shown.public_key.is_empty() {
                return Err("public_key is empty".to_owned());
            }
            Ok(shown.public_key)
        })
        .await
    }

    /// Returns 8 to 8192 random bits, a multiple of 8, from the service's hardware.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for another number of bits, and those of any call.
    pub async fn random(
        &self,
        caller: &Caller,
        bits: u32,
        deadline: Instant,
    ) -> Result<SecretBytes, ApiError> {
        #[derive(Deserialize)]
        struct Random {
            random_data: HiddenText,
        }
        let operation = operation("CreateRandom", "gen-random");
        check_bits(operation.name, bits)?;
        let length = bits.to_string();
        let fields = [("random_data_length", length.as_str())];
        self.call(caller, operation, &fields, deadline, |bytes| {
            let random = parse::<Random>(bytes)?.random_data.hex("random_data")?;
            same_length(random.len(), bits as usize / 8)?;
            Ok(random)
        })
        .await
    }

    /// Enables or disables a key.
    async fn switch(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        check_key_id(operation.name, key_id)?;
        let fields = [("key_id", key_id)];
        let read = parse::<OneKey<KeyStatus>>;
        let status = self.call(caller, operation, &fields, deadline, |bytes| {
            let status = read(bytes)?.key_info;
            same_key(&status.key_id, key_id)?;
            Ok(status)
        });
        status.await
    }

    async fn status(
        &self,
        caller: &Caller,
        operation: Operation,
        fields: &[(&str, &str)],
        key_id: &str,
        deadline: Instant,
    ) -> Result<KeyStatus, ApiError> {
        self.call(caller, operation, fields, deadline, |bytes| {
            let status: KeyStatus = parse(bytes)?;
            same_key(&status.key_id, key_id)?;
            Ok(status)
        })
        .await
    }

    /// Calls an operation that returns an encrypted data key.
    async fn wrapped(
        &self,
        caller: &Caller,
        operation: Operation,
        fields: &[(&str, &str)],
        key_id: &str,
        deadline: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        #[derive(Deserialize)]
        struct Wrapped {
            key_id: String,
            cipher_text: String,
        }
        self.call(caller, operation, fields, deadline, |bytes| {
            let wrapped = parse::<Wrapped>(bytes)?;
            same_key(&wrapped.key_id, key_id)?;
            answer::hex(&wrapped.cipher_text, "cipher_text")
        })
        .await
    }

    async fn call<T>(
        &self,
        caller: &Caller,
        operation: Operation,
        fields: &[(&str, &str)],
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let base = self.0.kms_endpoint(&caller.region);
        let base = base.map_err(|error| ApiError {
            operation: operation.name,
            ..error
        })?;
        let body = body(operation.name, fields)?;
        let project = self.0.project(caller, deadline).await?;
        let call = Call {
            operation: operation.name,
            method: Method::POST,
            base: &base,
            path: &["v1.0", &project, "kms", operation.path],
            query: &[],
            body: body.into_bytes(),
            idempotent: operation.idempotent,
            limiter: self.0.limiter(),
            turn: &caller.turn,
        };
        let signer = Signer {
            credentials: &caller.credentials,
            project: Some(&project),
        };
        self.0.send(&call, signer, deadline, read).await
    }
}

/// Checks that a response is about the key that was asked for.
fn same_key(answered: &str, asked: &str) -> Result<(), String> {
    if answered == asked {
        return Ok(());
    }
    Err("it is about another key".to_owned())
}

fn same_length(got: usize, expected: usize) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{got} bytes instead of {expected}"))
}

fn push_aad<'a>(fields: &mut Vec<(&'static str, &'a str)>, aad: Option<&'a str>) {
    fields.extend(aad.map(|aad| ("additional_authenticated_data", aad)));
}

fn push_data_fields<'a>(
    fields: &mut Vec<(&'static str, &'a str)>,
    algorithm: EncryptionAlgorithm,
    aad: Option<&'a str>,
) {
    // The default goes unsaid, so that services without asymmetric keys understand the call.
    if algorithm != EncryptionAlgorithm::Symmetric {
        fields.push(("encryption_algorithm", algorithm.name()));
    }
    push_aad(fields, aad);
}

fn data_key_fields<'a>(
    operation: Operation,
    key_id: &'a str,
    bits: u32,
    length: &'a str,
    aad: Option<&'a str>,
) -> Result<Vec<(&'static str, &'a str)>, ApiError> {
    check_key_id(operation.name, key_id)?;
    check_bits(operation.name, bits)?;
    check_aad(operation.name, aad)?;
    let mut fields = vec![("key_id", key_id), ("datakey_length", length)];
    push_aad(&mut fields, aad);
    Ok(fields)
}

/// Checks a digest and its key, and returns the digest as KMS wants it.
fn digest_text(
    operation: Operation,
    key_id: &str,
    algorithm: SigningAlgorithm,
    digest: &[u8],
) -> Result<String, ApiError> {
    check_key_id(operation.name, key_id)?;
    let (got, expected) = (digest.len(), algorithm.digest_len());
    if got != expected {
        let text = format!("a digest of {got} bytes; {algorithm} signs {expected}");
        return Err(ApiError::local(operation.name, ErrorKind::Invalid, text));
    }
    Ok(base64(digest))
}

fn signing_fields<'a>(
    key_id: &'a str,
    message: &'a str,
    algorithm: SigningAlgorithm,
) -> [(&'static str, &'a str); 4] {
    [
        ("key_id", key_id),
        ("message", message),
        ("signing_algorithm", algorithm.name()),
        ("message_type", "DIGEST"),
    ]
}
