//! Verifies signatures as the API gateway does.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use http::HeaderMap;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp, civil::DateTime};
use ring::{digest, hmac};

use super::canonical::canonical_request;
use crate::sim::huawei::config::Account;
use crate::util::secret_bytes::SecretBytes;

/// Largest clock difference that the gateway accepts.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(15);
/// Number of consecutive failures after which an access key is locked.
const MAX_FAILURES: u32 = 5;
/// How long an access key stays locked.
const LOCK_DURATION: SignedDuration = SignedDuration::from_mins(5);

/// A request as received.
pub(in crate::sim::huawei) struct ReceivedRequest<'a> {
    pub(in crate::sim::huawei) method: &'a str,
    pub(in crate::sim::huawei) path: &'a str,
    pub(in crate::sim::huawei) query: &'a str,
    pub(in crate::sim::huawei) headers: &'a HeaderMap,
    pub(in crate::sim::huawei) body: &'a [u8],
}

/// Why a request is rejected. The text is the detail of the error APIG.0301.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::sim::huawei) enum SignatureError {
    #[error("x-auth-token not found")]
    Unsigned,
    #[error("authorization header is malformed")]
    Malformed,
    #[error("Get secretKey failed,ak:{0},err:ak not exist")]
    UnknownKey(String),
    #[error("AK access failed to reach the limit,forbidden")]
    Locked,
    #[error("verify aksk signature fail")]
    Date,
    #[error("decrypt token fail")]
    Token,
    #[error("token expires")]
    Expired,
    #[error("verify aksk signature fail")]
    Signature,
}

/// The account and access key that signed a request.
#[derive(Clone, Debug)]
pub(in crate::sim::huawei) struct VerifiedCaller {
    /// Index in the accounts of the configuration.
    pub(in crate::sim::huawei) account: usize,
    pub(in crate::sim::huawei) access_key: String,
}

/// Temporary keys of an account, with their security token.
#[derive(Clone, Debug)]
pub(in crate::sim::huawei) struct TemporaryKeys {
    pub(in crate::sim::huawei) access_key: String,
    pub(in crate::sim::huawei) secret_key: SecretBytes,
    pub(in crate::sim::huawei) token: SecretBytes,
    pub(in crate::sim::huawei) expires: Timestamp,
    account: usize,
}

/// Holds all keys and the number of failures of each.
#[derive(Debug)]
pub(in crate::sim::huawei) struct SignatureVerifier {
    keys: BTreeMap<String, (usize, SecretBytes)>,
    temporary: BTreeMap<String, TemporaryKeys>,
    /// Consecutive failures by access key, and the time of the last one.
    failures: BTreeMap<String, (u32, Timestamp)>,
    lock_keys: bool,
}

impl SignatureVerifier {
    pub(in crate::sim::huawei) fn new(accounts: &[Account], lock_keys: bool) -> Self {
        let keys = accounts
            .iter()
            .enumerate()
            .map(|(index, one)| (one.access_key.clone(), (index, one.secret_key.clone())))
            .collect();
        Self {
            keys,
            temporary: BTreeMap::new(),
            failures: BTreeMap::new(),
            lock_keys,
        }
    }

    /// Issues temporary keys for an account.
    pub(in crate::sim::huawei) fn issue(
        &mut self,
        account: usize,
        expires: Timestamp,
    ) -> TemporaryKeys {
        let random = || format!("{:032X}", fastrand::u128(..));
        let keys = TemporaryKeys {
            access_key: format!("HST{}", &random()[..17]),
            secret_key: random().into(),
            token: (random() + &random()).into(),
            expires,
            account,
        };
        self.temporary.insert(keys.access_key.clone(), keys.clone());
        keys
    }

    /// Expires all temporary keys issued so far.
    pub(in crate::sim::huawei) fn expire_tokens(&mut self) {
        for keys in self.temporary.values_mut() {
            keys.expires = Timestamp::MIN;
        }
    }

    /// Returns who signed the request. `now` is the time of the gateway.
    pub(in crate::sim::huawei) fn verify(
        &mut self,
        request: &ReceivedRequest<'_>,
        now: Timestamp,
    ) -> Result<VerifiedCaller, SignatureError> {
        let header = text(request.headers, "authorization").ok_or(SignatureError::Unsigned)?;
        let signed = Authorization::parse(header).ok_or(SignatureError::Malformed)?;
        let result = if self.locked(signed.access_key, now) {
            return Err(SignatureError::Locked);
        } else {
            self.verify_signature(request, &signed, now)
        };
        match &result {
            Ok(_) => {
                self.failures.remove(signed.access_key);
            }
            Err(SignatureError::Signature | SignatureError::Date) => {
                let count = self.failures.entry(signed.access_key.to_owned());
                let count = count.or_insert((0, now));
                *count = (count.0 + 1, now);
            }
            Err(_) => {}
        }
        result
    }

    fn locked(&mut self, access_key: &str, now: Timestamp) -> bool {
        let Some((count, last)) = self.failures.get(access_key).copied() else {
            return false;
        };
        if now.duration_since(last) >= LOCK_DURATION {
            self.failures.remove(access_key);
            return false;
        }
        self.lock_keys && count >= MAX_FAILURES
    }

    fn verify_signature(
        &self,
        request: &ReceivedRequest<'_>,
        signed: &Authorization<'_>,
        now: Timestamp,
    ) -> Result<VerifiedCaller, SignatureError> {
        let temporary = self.temporary.get(signed.access_key);
        let (account, secret_key) = match (self.keys.get(signed.access_key), temporary) {
            (Some((account, key)), _) => (*account, key),
            (None, Some(keys)) => (keys.account, &keys.secret_key),
            (None, None) => return Err(SignatureError::UnknownKey(signed.access_key.to_owned())),
        };
        if let Some(keys) = temporary {
            let token = text(request.headers, "x-security-token").unwrap_or_default();
            if token.as_bytes() != keys.token.expose() || !signed.names("x-security-token") {
                return Err(SignatureError::Token);
            }
            if keys.expires <= now {
                return Err(SignatureError::Expired);
            }
        }
        let date = text(request.headers, "x-sdk-date").ok_or(SignatureError::Signature)?;
        if !signed.names("x-sdk-date") {
            return Err(SignatureError::Signature);
        }
        if parse_date(date).is_none_or(|sent| now.duration_since(sent).abs() > MAX_SKEW) {
            return Err(SignatureError::Date);
        }
        let headers = signed
            .headers
            .iter()
            .map(|name| text(request.headers, name).map(|value| (*name, value)))
            .collect::<Option<Vec<_>>>()
            .ok_or(SignatureError::Signature)?;
        let canonical = canonical_request(
            request.method,
            request.path,
            request.query,
            &headers,
            &payload_hash(request, signed)?,
        );
        let to_sign = format!("SDK-HMAC-SHA256\n{date}\n{}", sha256(canonical.as_bytes()));
        let signature = HEXLOWER
            .decode(signed.signature.as_bytes())
            .map_err(|_| SignatureError::Signature)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose());
        hmac::verify(&key, to_sign.as_bytes(), &signature)
            .map_err(|_| SignatureError::Signature)?;
        Ok(VerifiedCaller {
            account,
            access_key: signed.access_key.to_owned(),
        })
    }
}

/// Returns the hash of the body. A hash in the header must be signed and correct; it may also be
/// `UNSIGNED-PAYLOAD`.
fn payload_hash(
    request: &ReceivedRequest<'_>,
    signed: &Authorization<'_>,
) -> Result<String, SignatureError> {
    let actual = sha256(request.body);
    match text(request.headers, "x-sdk-content-sha256") {
        None => Ok(actual),
        Some(_) if !signed.names("x-sdk-content-sha256") => Err(SignatureError::Signature),
        Some("UNSIGNED-PAYLOAD") => Ok("UNSIGNED-PAYLOAD".to_owned()),
        Some(given) if given == actual => Ok(actual),
        Some(_) => Err(SignatureError::Signature),
    }
}

/// The three parts of an Authorization header.
struct Authorization<'a> {
    access_key: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let mut parts = header.strip_prefix("SDK-HMAC-SHA256 ")?.split(", ");
        let parsed = Self {
            access_key: parts.next()?.strip_prefix("Access=")?,
            headers: parts
                .next()?
                .strip_prefix("SignedHeaders=")?
                .split(';')
                .collect(),
            signature: parts.next()?.strip_prefix("Signature=")?,
        };
        parts.next().is_none().then_some(parsed)
    }

    fn names(&self, header: &str) -> bool {
        self.headers.contains(&header)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok()
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Offset::UTC.to_timestamp(date).ok()
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests;
