//! Who signs: keys that a pod gives, or the process's own.

mod agency;
mod file;
mod keys;
mod own;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio::time::Instant;
use url::Url;

use super::env::Env;
use super::error::{ApiError, Kind};
use super::http;

pub use keys::AccessKeys;

/// Tells identities apart, and no more: what was fetched for one is never given to another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity(Who);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    /// SHA-256 over the keys.
    Keys([u8; 32]),
    /// The process's own, by the sources that it may use, and by the state of the credentials file:
    /// with other keys in it the process is somebody else.
    Own(&'static str, Option<file::Stamp>),
    /// SHA-256 over what stays the same over a restart; equal to none of the others.
    Lasting([u8; 32]),
}

impl Identity {
    /// Whether it is the process's own, and not a pod's.
    pub fn is_own(&self) -> bool {
        matches!(self.0, Who::Own(..))
    }

    /// One that was told before a restart: see [`super::Cloud::lasting`].
    pub fn from_lasting(hash: [u8; 32]) -> Self {
        Self(Who::Lasting(hash))
    }

    /// The hash of a lasting one.
    pub fn lasting(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Who::Lasting(hash) => Some(hash),
            Who::Keys(_) | Who::Own(..) => None,
        }
    }
}

impl fmt::Debug for Identity {
    /// The beginning of the hash is enough to tell two apart, and too little to guess keys with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Keys([a, b, c, d, ..]) | Who::Lasting([a, b, c, d, ..]) => {
                write!(f, "Identity({a:02x}{b:02x}{c:02x}{d:02x})")
            }
            Who::Own(name, _) => write!(f, "Identity({name})"),
        }
    }
}

/// Where the process's own credentials may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `HUAWEICLOUD_SDK_AK`, `HUAWEICLOUD_SDK_SK`, `HUAWEICLOUD_SDK_SECURITY_TOKEN`.
    Environment,
    /// `HUAWEICLOUD_SDK_CREDENTIALS_FILE`, else `~/.huaweicloud/credentials`.
    File,
    /// The agency of the ECS node, by the metadata service.
    Agency,
}

impl Source {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 3] = [Self::Environment, Self::File, Self::Agency];

    /// As in flags, errors and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::File => "file",
            Self::Agency => "agency",
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|source| source.name() == text)
            .ok_or_else(|| format!("{text:?} is none of environment, file, agency"))
    }
}

/// A handle on somebody's keys. Clones are the same identity and share what was fetched; what
/// works in the background ends with the last of them.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    keys: Keys,
}

enum Keys {
    /// With who they are, and what names them in errors.
    Fixed(Arc<AccessKeys>, Identity, &'static str),
    /// With what names the sources that may be used.
    Own(Box<own::Own>, &'static str),
}

impl Credentials {
    /// Keys that never change, such as those of a `nodePublishSecretRef`; `source` names them in
    /// errors.
    pub fn fixed(keys: AccessKeys, source: &'static str) -> Self {
        let identity = Identity(Who::Keys(keys.hash()));
        Self(Arc::new(Inner {
            keys: Keys::Fixed(Arc::new(keys), identity, source),
        }))
    }

    /// Who it is now.
    pub fn identity(&self) -> Identity {
        match &self.0.keys {
            Keys::Fixed(_, identity, _) => identity.clone(),
            Keys::Own(own, name) => Identity(Who::Own(name, own.state())),
        }
    }

    /// Where the keys come from: for the process's own the source in use, or `own` while none is.
    pub fn source(&self) -> &'static str {
        match &self.0.keys {
            Keys::Fixed(_, _, source) => source,
            Keys::Own(own, _) => own.source(),
        }
    }

    /// Keys that are good now.
    ///
    /// # Errors
    /// [`Kind::Credentials`] with the source and what to do.
    pub async fn keys(&self, deadline: Instant) -> Result<Arc<AccessKeys>, ApiError> {
        match &self.0.keys {
            Keys::Fixed(keys, ..) => Ok(Arc::clone(keys)),
            Keys::Own(own, _) => own.keys(deadline).await,
        }
    }

    /// Whether there are other keys now that the service refused these as expired.
    pub(super) async fn renew(
        &self,
        refused: &AccessKeys,
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        match &self.0.keys {
            Keys::Fixed(..) => Ok(false),
            Keys::Own(own, _) => own.renew(refused, deadline).await,
        }
    }

    /// What tells these from others across restarts, with the project that comes with them: the
    /// keys' hash, or none for the agency, whose keys are others each time. Asks nobody.
    pub(super) async fn lasting(&self) -> Option<(Option<[u8; 32]>, Option<String>)> {
        match &self.0.keys {
            Keys::Fixed(keys, ..) => Some((Some(keys.hash()), None)),
            Keys::Own(own, _) => own.lasting().await,
        }
    }

    /// The project that comes with the keys, if any.
    pub(super) async fn project(&self, deadline: Instant) -> Result<Option<String>, ApiError> {
        match &self.0.keys {
            Keys::Fixed(..) => Ok(None),
            Keys::Own(own, _) => own.project(deadline).await,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity())
            .field("source", &self.source())
            .finish()
    }
}

/// See [`super::Cloud::own_credentials`].
pub(super) fn own(
    sender: http::Shared,
    metadata: Url,
    env: &Env,
    only: Option<Source>,
) -> Result<Credentials, ApiError> {
    Ok(Credentials(Arc::new(Inner {
        keys: Keys::Own(
            Box::new(own::Own::new(sender, metadata, env, only)?),
            only.map_or("own", Source::name),
        ),
    })))
}

/// A failure of a source, which names it.
fn failed(source: Source, why: &str) -> ApiError {
    ApiError::local(
        "GetCredentials",
        Kind::Credentials,
        format!("credentials from {}: {why}", source.name()),
    )
}
