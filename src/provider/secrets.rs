//! The `secrets` of a request: keys that a pod brings by `nodePublishSecretRef`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use zeroize::Zeroizing;

use super::error::{MountError, Reason};
use super::request::place;

const ACCESS_KEY: &str = "accessKey";
const SECRET_KEY: &str = "secretKey";
const SECURITY_TOKEN: &str = "securityToken";

/// An access key of the pod's own.
pub struct PublishSecret {
    /// Key id.
    pub access_key: String,
    /// Key.
    pub secret_key: Zeroizing<String>,
    /// Token of temporary keys.
    pub security_token: Option<Zeroizing<String>>,
}

impl PublishSecret {
    /// As the Secret's data, for a message to the driver. The copies are not wiped: gRPC makes its own.
    pub fn as_map(&self) -> HashMap<String, String> {
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

/// Reads the driver's JSON. `null`, nothing, and a map with only kubelet's tokens (Kubernetes 1.35
/// puts them there) mean that the pod brings no keys; half a pair of keys is an error, so that a
/// misspelt field never falls back to the node's identity.
pub fn parse(json: &str) -> Result<Option<PublishSecret>, MountError> {
    if json.trim().is_empty() {
        return Ok(None);
    }
    let map: Option<BTreeMap<String, Zeroizing<String>>> =
        serde_json::from_str(json).map_err(|error| {
            MountError::new(
                Reason::Invalid,
                format!(
                    "secrets are not a JSON object of strings: {}",
                    place(&error)
                ),
            )
        })?;
    let mut map = map.unwrap_or_default();
    map.retain(|key, _| !key.starts_with("csi.storage.k8s.io/"));
    if map.is_empty() {
        return Ok(None);
    }
    let found = map.keys().cloned().collect::<Vec<_>>().join(", ");
    let mut take = |key: &str| map.remove(key).filter(|value| !value.trim().is_empty());
    let missing = |key: &str| {
        MountError::new(
            Reason::Precondition,
            format!(
                "the Secret of nodePublishSecretRef has no {key}: it must hold {ACCESS_KEY} and \
                 {SECRET_KEY}, and for temporary keys {SECURITY_TOKEN}; it holds {found}"
            ),
        )
    };
    let access_key = take(ACCESS_KEY).ok_or_else(|| missing(ACCESS_KEY))?;
    let secret_key = take(SECRET_KEY).ok_or_else(|| missing(SECRET_KEY))?;
    Ok(Some(PublishSecret {
        access_key: access_key.trim().to_owned(),
        secret_key: Zeroizing::new(secret_key.trim().to_owned()),
        security_token: take(SECURITY_TOKEN).map(|t| Zeroizing::new(t.trim().to_owned())),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_keys_is_not_an_error() {
        for json in [
            "",
            "null",
            "{}",
            r#"{"csi.storage.k8s.io/serviceAccount.tokens":"{}"}"#,
        ] {
            assert!(parse(json).unwrap().is_none(), "{json}");
        }
    }

    #[test]
    fn half_a_pair_names_the_missing_half() {
        let error = parse(r#"{"accessKey":"a","secret_key":"CANARY"}"#).expect_err("refused");
        assert!(error.message.contains("has no secretKey"), "{error}");
        assert!(
            error.message.contains("it holds accessKey, secret_key"),
            "{error}"
        );
        assert!(!error.message.contains("CANARY"));
        let keys = parse("{\"accessKey\":\"a\\n\",\"secretKey\":\"b\"}")
            .unwrap()
            .unwrap();
        assert_eq!(
            (keys.access_key.as_str(), keys.secret_key.as_str()),
            ("a", "b")
        );
    }
}
