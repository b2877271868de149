//! Who asks whom, as it is told apart across restarts.

use ring::digest::{Context, SHA256};

use super::{Caller, Cloud, Identity};

/// Parts these digests from all others, and from those of another meaning.
const DOMAIN: &[u8] = b"dew-provider lasting identity 1";

impl Cloud {
    /// An identity that is the same after a restart if the same keys, or again the node's agency,
    /// ask the same service for the same project. Asks nobody.
    ///
    /// `None` while the keys cannot be told, or if they are no longer those of `identity`.
    pub async fn lasting(&self, caller: &Caller, identity: &Identity) -> Option<Identity> {
        let (keys, own_project) = caller.credentials.lasting().await?;
        let service = self.0.endpoints.csms(&caller.region).ok()?;
        // Where none is given, the project follows from the configuration or from the keys.
        let project = match &caller.project {
            Some(_) => None,
            None => own_project.filter(|_| self.is_home(&caller.region)),
        };
        let mut hash = Context::new(&SHA256);
        for part in [
            DOMAIN,
            keys.as_ref().map_or(b"agency".as_slice(), |hash| hash),
            service.as_str().as_bytes(),
            project.as_deref().unwrap_or_default().as_bytes(),
        ] {
            hash.update(&part.len().to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        // Other keys may have come meanwhile.
        (caller.credentials.identity() == *identity).then(|| Identity::from_lasting(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::{Clock, Jitter};
    use crate::cloud::{AccessKeys, Config, Credentials, Env, Source};
    use crate::observe::metrics::CloudMetrics;

    const AK: &str = "HUAWEICLOUD_SDK_AK";
    const SK: &str = "HUAWEICLOUD_SDK_SK";
    const PROJECT: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
    const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

    /// A process of its own: nothing is shared but what is given.
    fn started(csms: &str, env: &[(&str, &str)]) -> (Cloud, Env) {
        let config = Config {
            csms_endpoint: Some(csms.into()),
            // Nobody listens there.
            metadata_endpoint: Some("http://127.0.0.1:1".into()),
            ..Config::default()
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
        };
        let identity = caller.credentials.identity();
        cloud.lasting(&caller, &identity).await.unwrap()
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
    async fn it_is_the_same_for_the_same_keys_and_service_only() {
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
    async fn it_is_that_of_the_source_that_will_be_used_before_any_was() {
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
        // Written again it is another state, but the same keys.
        write(&path, "a");
        assert_eq!(one, own("http://a", &file, None).await);
        write(&path, "other");
        let other = own("http://a", &file, None).await;
        assert!(one != other && one != agency && other != agency);
    }

    #[tokio::test]
    async fn there_is_none_without_keys_or_for_keys_that_went() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let (cloud, env) = started("http://a", &[(FILE, path.to_str().unwrap())]);
        let caller = Caller {
            region: "cn-north-4".parse().unwrap(),
            project: None,
            credentials: cloud.own_credentials(&env, None).unwrap(),
        };
        let before = caller.credentials.identity();
        assert_eq!(cloud.lasting(&caller, &before).await, None, "no file");
        std::fs::write(&path, "[basic]\nak=a\nsk=s\n").unwrap();
        assert_eq!(cloud.lasting(&caller, &before).await, None, "another one");
        let now = caller.credentials.identity();
        assert!(cloud.lasting(&caller, &now).await.is_some());
    }
}
