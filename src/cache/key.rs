//! The key of a cached version.

use crate::cloud::{Caller, Identity, Region, VersionSelector};

/// The key of a cached version. The identity is part of it: nothing fetched for one identity is served
/// to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    pub(super) identity: Identity,
    pub(super) region: Region,
    pub(super) project: Option<String>,
    /// Name of the secret.
    pub secret: String,
    /// Which version of it.
    pub selector: VersionSelector,
}

impl CacheKey {
    /// The key of a secret for `caller`, whose identity is now `identity`.
    pub fn new(
        caller: &Caller,
        identity: &Identity,
        secret: &str,
        selector: &VersionSelector,
    ) -> Self {
        Self {
            identity: identity.clone(),
            region: caller.region.clone(),
            project: caller.project.clone(),
            secret: secret.to_owned(),
            selector: selector.clone(),
        }
    }

    /// Whether it is one for `caller`, whose identity is now `identity`.
    pub fn is_of(&self, caller: &Caller, identity: &Identity) -> bool {
        self.identity == *identity && self.region == caller.region && self.project == caller.project
    }

    /// The same key for another identity.
    pub(super) fn with_identity(&self, identity: Identity) -> Self {
        Self {
            identity,
            ..self.clone()
        }
    }

    /// Whether both keys are equal except for the identity.
    pub(super) fn equals_except_identity(&self, other: &Self) -> bool {
        self.selector == other.selector && self.has_secret_of(other)
    }

    /// Whether both keys are of the same secret, whatever the identity and the version.
    pub(super) fn has_secret_of(&self, other: &Self) -> bool {
        self.secret == other.secret && self.project == other.project && self.region == other.region
    }
}
