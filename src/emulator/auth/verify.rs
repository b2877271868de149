//! The check of a signature, as the gateway makes it.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use http::HeaderMap;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp, civil::DateTime};
use ring::{digest, hmac};

use super::canonical::canonical_request;
use crate::emulator::config::Account;
use crate::secret::SecretBytes;

/// Widest difference of clocks that the gateway takes.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(15);
/// Refusals in a row after which a key is locked, and for how long.
const MAX_FAILURES: u32 = 5;
const LOCK: SignedDuration = SignedDuration::from_mins(5);

/// A request as it arrived.
pub(in crate::emulator) struct Received<'a> {
    pub(in crate::emulator) method: &'a str,
    pub(in crate::emulator) path: &'a str,
    pub(in crate::emulator) query: &'a str,
    pub(in crate::emulator) headers: &'a HeaderMap,
    pub(in crate::emulator) body: &'a [u8],
}

/// Why a request is refused: the detail of APIG.0301.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::emulator) enum Refusal {
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

/// The one who signed.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Caller {
    /// Index in the accounts of the configuration.
    pub(in crate::emulator) account: usize,
    pub(in crate::emulator) access_key: String,
}

/// Temporary keys of an account.
#[derive(Clone, Debug)]
pub(in crate::emulator) struct Temporary {
    pub(in crate::emulator) access_key: String,
    pub(in crate::emulator) secret_key: SecretBytes,
    pub(in crate::emulator) token: SecretBytes,
    pub(in crate::emulator) expires: Timestamp,
    account: usize,
}

/// Knows the keys and counts failures.
#[derive(Debug)]
pub(in crate::emulator) struct Guard {
    keys: BTreeMap<String, (usize, SecretBytes)>,
    temporary: BTreeMap<String, Temporary>,
    failures: BTreeMap<String, (u32, Timestamp)>,
    lock_keys: bool,
}

impl Guard {
    pub(in crate::emulator) fn new(accounts: &[Account], lock_keys: bool) -> Self {
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

    /// Makes temporary keys of an account.
    pub(in crate::emulator) fn issue(&mut self, account: usize, expires: Timestamp) -> Temporary {
        let random = || format!("{:032X}", fastrand::u128(..));
        let keys = Temporary {
            access_key: format!("HST{}", &random()[..17]),
            secret_key: random().into(),
            token: (random() + &random()).into(),
            expires,
            account,
        };
        self.temporary.insert(keys.access_key.clone(), keys.clone());
        keys
    }

    /// Makes all temporary keys given so far expired.
    pub(in crate::emulator) fn expire_tokens(&mut self) {
        for keys in self.temporary.values_mut() {
            keys.expires = Timestamp::MIN;
        }
    }

    /// Who signed the request, at the gateway's time `now`.
    pub(in crate::emulator) fn check(
        &mut self,
        request: &Received<'_>,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let header = text(request.headers, "authorization").ok_or(Refusal::Unsigned)?;
        let signed = Authorization::parse(header).ok_or(Refusal::Malformed)?;
        let result = if self.locked(signed.access_key, now) {
            return Err(Refusal::Locked);
        } else {
            self.check_signed(request, &signed, now)
        };
        match &result {
            Ok(_) => {
                self.failures.remove(signed.access_key);
            }
            Err(Refusal::Signature | Refusal::Date) => {
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
        if now.duration_since(last) >= LOCK {
            self.failures.remove(access_key);
            return false;
        }
        self.lock_keys && count >= MAX_FAILURES
    }

    fn check_signed(
        &self,
        request: &Received<'_>,
        signed: &Authorization<'_>,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let temporary = self.temporary.get(signed.access_key);
        let (account, secret_key) = match (self.keys.get(signed.access_key), temporary) {
            (Some((account, key)), _) => (*account, key),
            (None, Some(keys)) => (keys.account, &keys.secret_key),
            (None, None) => return Err(Refusal::UnknownKey(signed.access_key.to_owned())),
        };
        if let Some(keys) = temporary {
            let token = text(request.headers, "x-security-token").unwrap_or_default();
            if token.as_bytes() != keys.token.expose() || !signed.names("x-security-token") {
                return Err(Refusal::Token);
            }
            if keys.expires <= now {
                return Err(Refusal::Expired);
            }
        }
        let date = text(request.headers, "x-sdk-date").ok_or(Refusal::Signature)?;
        if !signed.names("x-sdk-date") {
            return Err(Refusal::Signature);
        }
        if parse_date(date).is_none_or(|sent| now.duration_since(sent).abs() > MAX_SKEW) {
            return Err(Refusal::Date);
        }
        let headers = signed
            .headers
            .iter()
            .map(|name| text(request.headers, name).map(|value| (*name, value)))
            .collect::<Option<Vec<_>>>()
            .ok_or(Refusal::Signature)?;
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
            .map_err(|_| Refusal::Signature)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose());
        // Compares in constant time.
        hmac::verify(&key, to_sign.as_bytes(), &signature).map_err(|_| Refusal::Signature)?;
        Ok(Caller {
            account,
            access_key: signed.access_key.to_owned(),
        })
    }
}

/// The header's hash where the caller set one (it must be signed, and right), else the body's.
fn payload_hash(request: &Received<'_>, signed: &Authorization<'_>) -> Result<String, Refusal> {
    let actual = sha256(request.body);
    match text(request.headers, "x-sdk-content-sha256") {
        None => Ok(actual),
        Some(_) if !signed.names("x-sdk-content-sha256") => Err(Refusal::Signature),
        Some("UNSIGNED-PAYLOAD") => Ok("UNSIGNED-PAYLOAD".to_owned()),
        Some(given) if given == actual => Ok(actual),
        Some(_) => Err(Refusal::Signature),
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
