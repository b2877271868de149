//! How old the ServiceAccount's list and the versions for a Mount may be.
//!
//! The driver does not distinguish a first mount from a repeated one (since v1.6.0
//! `current_object_version` is always empty), but the allowed age differs. After a restart every volume
//! counts as new once, which only makes the next call to the cloud earlier.

use std::time::Duration;

use super::record::MountRecord;
use crate::cache::{CacheKey, SecretCache};
use crate::cloud::VersionSelector;

/// Maximum age of `latest` or a stage in a new volume: a user who changes a secret and restarts a pod expects
/// the new value.
pub const NEW_LATEST: Duration = Duration::from_secs(10);
/// Maximum time since a `vN` in a new volume was confirmed, so that a revoked permission or a deleted
/// secret stops new pods.
pub const NEW_VERSION: Duration = Duration::from_secs(60 * 60);

/// Maximum age of the authorization in a mounted volume, whatever interval its class sets: an emptied list must
/// soon stop new values.
pub const AUTHORIZATION: Duration = Duration::from_secs(60);

/// Maximum age of the authorization of a Mount; `mounted` is the volume's record if it is not new, and
/// `interval` is `rotation_poll_interval`.
pub fn authorization(mounted: Option<&MountRecord>, interval: Duration) -> Duration {
    mounted.map_or(NEW_LATEST.min(interval), |record| {
        AUTHORIZATION.min(record.interval)
    })
}

/// Maximum age of the version of each key; `None` is any age. An object that is added to a mounted volume
/// is new in it.
pub fn versions(
    mounted: Option<&MountRecord>,
    keys: &[CacheKey],
    interval: Duration,
    cache: &SecretCache,
) -> Vec<Option<Duration>> {
    let known = mounted.map(|record| &*record.keys);
    let same_keys = known == Some(keys);
    let is_mounted = |key: &CacheKey| same_keys || known.is_some_and(|known| known.contains(key));
    let max_age = |key: &CacheKey| match (&key.selector, is_mounted(key)) {
        (VersionSelector::Version(_), true) => None,
        (VersionSelector::Version(_), false) => Some(NEW_VERSION),
        (VersionSelector::Latest | VersionSelector::Stage(_), false) => {
            Some(NEW_LATEST.min(interval))
        }
        (VersionSelector::Latest | VersionSelector::Stage(_), true) => {
            (!cache.is_covered(key, interval)).then_some(interval)
        }
    };
    keys.iter().map(max_age).collect()
}
