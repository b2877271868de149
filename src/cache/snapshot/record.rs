//! A version in the snapshot file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::entries::CachedVersion;
use crate::cache::key::CacheKey;
use crate::cloud::{Identity, SecretValue, VersionSelector};
use crate::util::secret_bytes::SecretBytes;

/// The clock may be set back by this much between saving and loading.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(60);

/// A version to save, or one that was loaded. The identity in its key is a fingerprint.
pub(in crate::cache) struct SavedVersion {
    pub(in crate::cache) key: CacheKey,
    pub(in crate::cache) version: Arc<CachedVersion>,
    pub(in crate::cache) confirmed: Instant,
    /// The namespaces that use it.
    pub(in crate::cache) users: Vec<Arc<str>>,
}

/// The file's message for a version. It has no `Debug` because it holds the value, whose bytes are
/// shared with the cache or with the file read, and zeroized there.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct SnapshotRecord {
    #[prost(bytes = "bytes", tag = "1")]
    identity: Bytes,
    #[prost(string, tag = "2")]
    region: String,
    #[prost(string, optional, tag = "3")]
    project: Option<String>,
    #[prost(string, tag = "4")]
    secret: String,
    /// What was requested: this version, or the holder of this stage, or else `latest`.
    #[prost(string, optional, tag = "5")]
    version: Option<String>,
    #[prost(string, optional, tag = "6")]
    stage: Option<String>,
    /// The version that was returned.
    #[prost(string, tag = "7")]
    id: String,
    #[prost(int64, tag = "8")]
    create_time: i64,
    #[prost(bool, tag = "9")]
    binary: bool,
    #[prost(bytes = "bytes", tag = "10")]
    value: Bytes,
    /// When it was last confirmed, in milliseconds since 1970.
    #[prost(int64, tag = "11")]
    confirmed: i64,
    /// The namespaces that use it.
    #[prost(string, repeated, tag = "12")]
    users: Vec<String>,
}

impl SnapshotRecord {
    pub(super) fn new(saved: &SavedVersion, (instant, date): (Instant, i64)) -> Self {
        let SavedVersion {
            key,
            version,
            confirmed,
            users,
        } = saved;
        let (requested, stage) = match &key.selector {
            VersionSelector::Latest => (None, None),
            VersionSelector::Version(id) => (Some(id.clone()), None),
            VersionSelector::Stage(stage) => (None, Some(stage.clone())),
        };
        let age = instant.duration_since(*confirmed).as_millis();
        let identity = key.identity.fingerprint().map(|hash| hash.to_vec());
        Self {
            identity: identity.unwrap_or_default().into(),
            region: key.region.to_string(),
            project: key.project.clone(),
            secret: key.secret.clone(),
            version: requested,
            stage,
            id: version.id.clone(),
            create_time: version.create_time,
            binary: matches!(version.value, SecretValue::Binary(_)),
            value: version.value.bytes().clone().into_bytes(),
            confirmed: date.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)),
            users: users.iter().map(|user| user.to_string()).collect(),
        }
    }

    /// The saved version; `None` if it is too old, from the future, or inconsistent.
    pub(super) fn into_saved(
        self,
        (instant, date): (Instant, i64),
        limit: Duration,
    ) -> Option<SavedVersion> {
        let since = |confirmed, date: i64| {
            let age = date.checked_sub(confirmed).map(u64::try_from);
            age?.ok().map(Duration::from_millis)
        };
        let age = match since(self.confirmed, date) {
            Some(age) => age,
            // The clock was set back a little.
            None => since(date, self.confirmed).filter(|ahead| *ahead <= MAX_CLOCK_STEP)?,
        };
        if age >= limit || self.secret.is_empty() || self.id.is_empty() {
            return None;
        }
        let selector = match (self.version, self.stage) {
            (None, None) => VersionSelector::Latest,
            (Some(version), None) if version == self.id => VersionSelector::Version(version),
            (None, Some(stage)) => VersionSelector::Stage(stage),
            (Some(_), _) => return None,
        };
        // A copy, so that one value does not keep the whole file in memory.
        let value = SecretBytes::new(self.value.to_vec());
        let value = match self.binary {
            true => SecretValue::Binary(value),
            false => {
                value.expose_str()?;
                SecretValue::Text(value)
            }
        };
        Some(SavedVersion {
            key: CacheKey {
                identity: Identity::from_fingerprint(self.identity.as_ref().try_into().ok()?),
                region: self.region.parse().ok()?,
                project: self.project,
                secret: self.secret,
                selector,
            },
            version: Arc::new(CachedVersion {
                id: self.id,
                create_time: self.create_time,
                value,
            }),
            confirmed: instant.checked_sub(age)?,
            users: self.users.into_iter().map(Arc::from).collect(),
        })
    }
}
