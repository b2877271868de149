//! The keys that a pod brings in the Secret of its `nodePublishSecretRef`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use zeroize::Zeroizing;

use crate::class::resolver::PUBLISH_SECRET;
use crate::cloud::{AccessKeys, Credentials};
use crate::util::json::{self, MaybeText};
use crate::util::text::{joined, one_line};

const ACCESS_KEY: &str = "accessKey";
const SECRET_KEY: &str = "secretKey";
const SECURITY_TOKEN: &str = "securityToken";
/// Maximum length of a key in a message, in characters.
const MAX_KEY: usize = 64;

/// A pod's own access key.
pub struct PublishSecret {
    access_key: String,
    secret_key: Zeroizing<String>,
    /// Only temporary keys have one.
    security_token: Option<Zeroizing<String>>,
}

/// Why the Secret contains no usable keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishSecretError {
    /// The driver did not send a JSON object of strings.
    #[error("nodePublishSecretRef: secrets are not a JSON object of strings: {0}")]
    Malformed(String),
    /// A value is not a string.
    #[error("the Secret of nodePublishSecretRef: {key} is {found}, not a string")]
    Mistyped {
        /// The key.
        key: String,
        /// What its value is.
        found: &'static str,
    },
    /// A key is missing.
    #[error(
        "the Secret of nodePublishSecretRef has no {missing}: it must contain {ACCESS_KEY} and {SECRET_KEY}, and \
         {SECURITY_TOKEN} for temporary keys; it contains {found}"
    )]
    Incomplete {
        /// The missing key.
        missing: &'static str,
        /// The keys that it contains.
        found: String,
    },
}

impl PublishSecret {
    /// Parses the `secrets` of a Mount. `null`, an empty text, and an object with kubelet's tokens only
    /// (Kubernetes 1.35 sends them there) mean that the pod brings no keys. Half a pair of keys is an
    /// error, so that a misspelled field never falls back to the node's identity.
    ///
    /// # Errors
    /// See [`PublishSecretError`]; it contains no value.
    pub fn parse(json: &str) -> Result<Option<Self>, PublishSecretError> {
        if json.trim().is_empty() {
            return Ok(None);
        }
        let map: Option<BTreeMap<String, MaybeText<Zeroizing<String>>>> =
            serde_json::from_str(json).map_err(|error| {
                let why = json::describe(&error, "it is not an object");
                PublishSecretError::Malformed(why)
            })?;
        let mut texts = BTreeMap::new();
        for (key, value) in map.unwrap_or_default() {
            if key.starts_with("csi.storage.k8s.io/") {
                continue;
            }
            let text = value.0.map_err(|found| PublishSecretError::Mistyped {
                key: one_line(&key, MAX_KEY),
                found,
            })?;
            texts.insert(key, text);
        }
        let mut map = texts;
        if map.is_empty() {
            return Ok(None);
        }
        let found = joined(map.keys().map(|key| one_line(key, MAX_KEY)), ", ", 10, 512);
        let mut take = |key: &str| map.remove(key).filter(|value| !value.trim().is_empty());
        let incomplete = |missing| PublishSecretError::Incomplete {
            missing,
            found: found.clone(),
        };
        let access_key = take(ACCESS_KEY).ok_or_else(|| incomplete(ACCESS_KEY))?;
        let secret_key = take(SECRET_KEY).ok_or_else(|| incomplete(SECRET_KEY))?;
        Ok(Some(Self {
            access_key: access_key.trim().to_owned(),
            secret_key: Zeroizing::new(secret_key.trim().to_owned()),
            security_token: take(SECURITY_TOKEN).map(|t| Zeroizing::new(t.trim().to_owned())),
        }))
    }

    /// Credentials that sign with these keys.
    pub fn credentials(&self) -> Credentials {
        let token = self.security_token.as_ref().map(|token| token.to_string());
        let keys = AccessKeys::new(
            self.access_key.as_str(),
            self.secret_key.as_str(),
            token,
            None,
        );
        Credentials::fixed(keys, PUBLISH_SECRET)
    }

    /// The data of the Secret, for a message to the driver. The copies are not zeroized: gRPC makes its
    /// own.
    pub fn to_map(&self) -> HashMap<String, String> {
        let token = self.security_token.as_ref();
        let mut map = HashMap::from([
            (ACCESS_KEY.to_owned(), self.access_key.clone()),
            (SECRET_KEY.to_owned(), self.secret_key.to_string()),
        ]);
        map.extend(token.map(|token| (SECURITY_TOKEN.to_owned(), token.to_string())));
        map
    }
}

impl fmt::Debug for PublishSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_keys_is_not_an_error() {
        for json in [
            "",
            "null",
            "{}",
            r#"{"csi.storage.k8s.io/serviceAccount.tokens":"{}"}"#,
        ] {
            assert!(PublishSecret::parse(json).unwrap().is_none(), "{json}");
        }
    }

    #[test]
    fn half_a_pair_of_keys_names_the_missing_one() {
        let error = PublishSecret::parse(r#"{"accessKey":"a","secret_key":"CANARY"}"#)
            .expect_err("rejected");
        assert!(error.to_string().contains("has no secretKey"), "{error}");
        assert!(
            error
                .to_string()
                .contains("it contains accessKey, secret_key"),
            "{error}"
        );
        assert!(!error.to_string().contains("CANARY"));
        let keys = PublishSecret::parse("{\"accessKey\":\"a\\n\",\"secretKey\":\"b\"}")
            .unwrap()
            .unwrap();
        assert_eq!(
            (keys.access_key.as_str(), keys.secret_key.as_str()),
            ("a", "b")
        );
    }
}
