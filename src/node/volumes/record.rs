//! What the provider remembers of the last Mount of a volume.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{CacheKey, VersionStamp};
use crate::cloud::Caller;
use crate::kube::PodRef;
use crate::node::pod_credentials::PublishSecret;

/// One volume of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeId {
    /// UID of the pod.
    pub pod_uid: String,
    /// SecretProviderClass, in the pod's namespace.
    pub class: String,
    /// kubelet's directory of the volume.
    pub target_path: String,
}

/// A hash of the parameters with which a volume is mounted, which an edit of the class changes. Comparable
/// only within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SettingsHash(pub(super) u64);

/// What a volume received for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivered {
    /// A version from the primary region.
    Version(VersionStamp),
    /// Nothing: an optional object that did not exist.
    Nothing,
    /// A version from the failover region, which is never compared with the cached one.
    Failover,
}

impl Delivered {
    /// Whether the cached version is the delivered one.
    pub(super) fn is_current(self, cached: Option<VersionStamp>) -> bool {
        match (self, cached) {
            (Self::Version(delivered), Some(cached)) => delivered == cached,
            // An evicted version is not a change.
            (Self::Version(_), None) | (Self::Nothing, None) | (Self::Failover, _) => true,
            (Self::Nothing, Some(_)) => false,
        }
    }
}

/// The last successful Mount of a volume.
#[derive(Debug)]
pub struct MountRecord {
    /// The pod.
    pub pod: PodRef,
    /// The parameters with which it was mounted.
    pub settings: SettingsHash,
    /// How old `latest` may be in the volume.
    pub interval: Duration,
    /// The caller for whom its objects are fetched.
    pub caller: Arc<Caller>,
    /// The cache keys of its objects.
    pub keys: Arc<[CacheKey]>,
    /// What the volume received for each object, in the order of `keys`.
    pub delivered: Arc<[Delivered]>,
    /// The access keys that the pod brings.
    pub publish_secret: Option<Arc<PublishSecret>>,
}
