//! The secret versions cached on this node, by identity, and how they compare with what the leader
//! published.

mod entries;
mod key;
mod leader_view;
mod refresh_state;
mod rejections;
mod secret_cache;
mod snapshot;

pub use entries::{CachedVersion, VersionStamp};
pub use key::CacheKey;
pub use leader_view::{ResolvedVersion, Revision, SecretRef, SyncStatus};
pub use secret_cache::{LastGood, NOT_FOUND_AGAIN_AFTER, SecretCache, SecretStatus};
pub use snapshot::{SnapshotDirError, SnapshotFile};
