//! A handle to credentials of any kind.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::access_keys::AccessKeys;
use super::chain::CredentialChain;
use super::fingerprint::FingerprintParts;
use super::identity::Identity;
use super::source::Source;
use crate::cloud::error::ApiError;

/// The credentials of a pod or of the process. Clones are the same identity and share what was fetched;
/// background work ends when the last clone is dropped.
#[derive(Clone)]
pub struct Credentials(Arc<Provenance>);

enum Provenance {
    Fixed {
        keys: Arc<AccessKeys>,
        identity: Identity,
        /// The source, for errors.
        source: &'static str,
    },
    Own {
        chain: CredentialChain,
        /// The only source that may be used; any if `None`.
        source: Option<Source>,
    },
}

impl Credentials {
    /// Keys that never change, such as those of a `nodePublishSecretRef`; `source` names them in
    /// errors.
    pub fn fixed(keys: AccessKeys, source: &'static str) -> Self {
        Self(Arc::new(Provenance::Fixed {
            identity: Identity::of_keys(keys.hash()),
            keys: Arc::new(keys),
            source,
        }))
    }

    /// The process's own, from one source only or, if `None`, from any.
    pub(in crate::cloud) fn own(chain: CredentialChain, source: Option<Source>) -> Self {
        Self(Arc::new(Provenance::Own { chain, source }))
    }

    /// The identity that these credentials have now.
    pub fn identity(&self) -> Identity {
        match &*self.0 {
            Provenance::Fixed { identity, .. } => identity.clone(),
            Provenance::Own { chain, source } => Identity::own(*source, chain.file_stamp()),
        }
    }

    /// Where the keys come from. For the process's own: the source in use, or `own` if none is yet.
    pub fn source(&self) -> &'static str {
        match &*self.0 {
            Provenance::Fixed { source, .. } => source,
            Provenance::Own { chain, .. } => chain.source(),
        }
    }

    /// Keys that are valid now.
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`] with the source and what to do.
    ///
    /// [`ErrorKind::Credentials`]: crate::cloud::ErrorKind::Credentials
    pub async fn keys(&self, deadline: Instant) -> Result<Arc<AccessKeys>, ApiError> {
        match &*self.0 {
            Provenance::Fixed { keys, .. } => Ok(Arc::clone(keys)),
            Provenance::Own { chain, .. } => chain.keys(deadline).await,
        }
    }

    /// Whether there are other keys after the service rejected `refused` as expired.
    pub(in crate::cloud) async fn renew(
        &self,
        refused: &AccessKeys,
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        match &*self.0 {
            Provenance::Fixed { .. } => Ok(false),
            Provenance::Own { chain, .. } => chain.renew(refused, deadline).await,
        }
    }

    /// What identifies these credentials across restarts. Makes no network calls.
    pub(in crate::cloud) async fn fingerprint_parts(&self) -> Option<FingerprintParts> {
        match &*self.0 {
            Provenance::Fixed { keys, .. } => Some(FingerprintParts {
                keys: Some(keys.hash()),
                project: None,
            }),
            Provenance::Own { chain, .. } => chain.fingerprint_parts().await,
        }
    }

    /// The project that comes with the credentials, if any.
    pub(in crate::cloud) async fn project(
        &self,
        deadline: Instant,
    ) -> Result<Option<String>, ApiError> {
        match &*self.0 {
            Provenance::Fixed { .. } => Ok(None),
            Provenance::Own { chain, .. } => chain.project(deadline).await,
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
