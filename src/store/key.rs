//! What a value is kept under.

use crate::cloud::{Caller, Identity, Region};

/// Which version of a secret is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The service's `latest`.
    Latest,
    /// A version by its id, `v1`, `v2`, …; its value never changes.
    Version(String),
    /// Whichever version holds this stage.
    Stage(String),
}

/// What a value is kept under. The identity is part of it: nothing fetched for one is served to
/// another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) identity: Identity,
    pub(super) region: Region,
    pub(super) project: Option<String>,
    /// Name of the secret.
    pub secret: String,
    /// Which version.
    pub selector: Selector,
}

impl Key {
    /// The key of a secret as `caller`, who is `identity` now, sees it.
    pub fn new(caller: &Caller, identity: &Identity, secret: &str, selector: &Selector) -> Self {
        Self {
            identity: identity.clone(),
            region: caller.region.clone(),
            project: caller.project.clone(),
            secret: secret.to_owned(),
            selector: selector.clone(),
        }
    }

    /// The same for another identity.
    pub(super) fn of(&self, identity: Identity) -> Self {
        Self {
            identity,
            ..self.clone()
        }
    }

    /// Whether both differ in the identity at most.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.selector == other.selector
            && self.secret == other.secret
            && self.project == other.project
            && self.region == other.region
    }
}
