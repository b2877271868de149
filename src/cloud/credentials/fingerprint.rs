//! Recognizes an identity after a restart.

use ring::digest::{Context, SHA256};
use url::Url;

use super::identity::Identity;

/// Separates these digests from all others.
const DOMAIN: &[u8] = b"dew-provider lasting identity 1";

/// What identifies credentials across restarts.
pub(in crate::cloud) struct FingerprintParts {
    /// SHA-256 of the keys; `None` for the agency, whose keys change.
    pub(in crate::cloud) keys: Option<[u8; 32]>,
    /// The project that comes with the credentials, if any.
    pub(in crate::cloud) project: Option<String>,
}

/// The identity that these keys, or the node's agency if `None`, have after a restart for the same service
/// and project.
pub(in crate::cloud) fn fingerprint(
    keys: Option<&[u8; 32]>,
    service: &Url,
    project: Option<&str>,
) -> Identity {
    let mut hash = Context::new(&SHA256);
    for part in [
        DOMAIN,
        keys.map_or(b"agency".as_slice(), |hash| hash),
        service.as_str().as_bytes(),
        project.unwrap_or_default().as_bytes(),
    ] {
        hash.update(&part.len().to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Identity::from_fingerprint(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cloud::{
        AccessKeys, Caller, Cloud, CloudConfig, Credentials, Identity, Source, Turn,
    };
    use crate::telemetry::metrics::CloudMetrics;
    use crate::util::clock::{Clock, Jitter};
    use crate::util::env::Env;

    const AK: &str = "HUAWEICLOUD_SDK_AK";
    const SK: &str = "HUAWEICLOUD_SDK_SK";
    const PROJECT: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
    const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

    /// A client as a new process has it.
    fn started(csms: &str, env: &[(&str, &str)]) -> (Cloud, Env) {
        let config = CloudConfig {
            csms_endpoint: Some(csms.into()),
            // Nothing listens there.
            metadata_endpoint: Some("http://127.0.0.1:1".into()),
            ..CloudConfig::default()
        };
        let env = Env::from_pairs(env.iter().copied());
        let clock = Clock::from_fn(|| jiff::Timestamp::UNIX_EPOCH);
        let (jitter, metrics) = (Jitter::seeded(1), CloudMetrics::default());
        (
            Cloud::new(config, &env, clock, jitter, metrics).unwrap(),
            env,
        )
    }

    async fn of(cloud: &Cloud, credentials: Credentials, project: Option<&str>) -> Identity {
        let caller = Caller {
            region: "cn-north-4".parse().unwrap(),
            project: project.map(Into::into),
            credentials,
            turn: Turn::default(),
        };
        let identity = caller.credentials.identity();
        cloud.fingerprint(&caller, &identity).await.unwrap()
    }

    async fn own(csms: &str, env: &[(&str, &str)], only: Option<Source>) -> Identity {
        let (cloud, env) = started(csms, env);
        of(&cloud, cloud.own_credentials(&env, only).unwrap(), None).await
    }

    async fn fixed(csms: &str, keys: [&str; 3]) -> Identity {
        let [access, secret, token] = keys;
        let keys = AccessKeys::new(access, secret, Some(token.to_owned()), None);
        let (cloud, _) = started(csms, &[]);
        of(&cloud, Credentials::fixed(keys, "test"), None).await
    }

    #[tokio::test]
    async fn it_differs_with_the_keys_and_the_service() {
        let one = fixed("http://a", ["a", "s", "t"]).await;
        assert_eq!(one, fixed("http://a", ["a", "s", "t"]).await);
        for keys in [["b", "s", "t"], ["a", "x", "t"], ["a", "s", ""]] {
            assert_ne!(one, fixed("http://a", keys).await, "{keys:?}");
        }
        assert_ne!(one, fixed("http://b", ["a", "s", "t"]).await);

        let one = own("http://a", &[(AK, "a"), (SK, "s")], None).await;
        assert_eq!(one, own("http://a", &[(AK, "a"), (SK, "s")], None).await);
        assert_ne!(one, own("http://a", &[(AK, "a"), (SK, "x")], None).await);
        let elsewhere = [(AK, "a"), (SK, "s"), (PROJECT, "p")];
        assert_ne!(one, own("http://a", &elsewhere, None).await);
    }

    #[tokio::test]
    async fn before_first_use_it_is_that_of_the_source_that_would_be_used() {
        let agency = own("http://a", &[], None).await;
        assert_eq!(agency, own("http://a", &[], Some(Source::Agency)).await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let write = |path: &Path, access: &str| {
            std::fs::write(path, format!("[basic]\nak={access}\nsk=s\n")).unwrap();
        };
        write(&path, "a");
        let file = [(FILE, path.to_str().unwrap())];
        let one = own("http://a", &file, None).await;
        assert_eq!(one, own("http://a", &[(AK, "a"), (SK, "s")], None).await);
        // The file is new, the keys are the same.
        write(&path, "a");
        assert_eq!(one, own("http://a", &file, None).await);
        write(&path, "other");
        let other = own("http://a", &file, None).await;
        assert!(one != other && one != agency && other != agency);
    }

    #[tokio::test]
    async fn without_keys_or_after_a_change_of_keys_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let (cloud, env) = started("http://a", &[(FILE, path.to_str().unwrap())]);
        let caller = Caller {
            region: "cn-north-4".parse().unwrap(),
            project: None,
            credentials: cloud.own_credentials(&env, None).unwrap(),
            turn: Turn::default(),
        };
        let before = caller.credentials.identity();
        assert_eq!(cloud.fingerprint(&caller, &before).await, None, "no file");
        std::fs::write(&path, "[basic]\nak=a\nsk=s\n").unwrap();
        assert_eq!(
            cloud.fingerprint(&caller, &before).await,
            None,
            "another one"
        );
        let now = caller.credentials.identity();
        assert!(cloud.fingerprint(&caller, &now).await.is_some());
    }
}
