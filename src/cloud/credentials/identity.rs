//! Who makes a request.

use std::fmt;

use super::file::FileStamp;
use super::source::Source;

/// Distinguishes callers: what was fetched for one identity is never served to another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity(Who);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    /// SHA-256 of fixed keys.
    Keys([u8; 32]),
    /// The process's own credentials, by the source that a class chose and the state of the credentials
    /// file: if its keys change, the process has another identity.
    Own(Option<Source>, Option<FileStamp>),
    /// SHA-256 of what stays the same across restarts; equal to none of the others.
    Fingerprint([u8; 32]),
}

impl Identity {
    /// The holder of fixed keys.
    pub(super) fn of_keys(hash: [u8; 32]) -> Self {
        Self(Who::Keys(hash))
    }

    /// The process itself, with credentials from the one source or, if `None`, from the first that is configured.
    pub(super) fn own(source: Option<Source>, file: Option<FileStamp>) -> Self {
        Self(Who::Own(source, file))
    }

    /// An identity that is the same after a restart: see [`Cloud::fingerprint`].
    ///
    /// [`Cloud::fingerprint`]: crate::cloud::Cloud::fingerprint
    pub fn from_fingerprint(hash: [u8; 32]) -> Self {
        Self(Who::Fingerprint(hash))
    }

    /// Whether it is the process's own identity, and no class chose its source: the one with which the leader
    /// polls.
    pub fn is_default(&self) -> bool {
        matches!(self.0, Who::Own(None, _))
    }

    /// The hash, if this is a fingerprint.
    pub fn fingerprint(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Who::Fingerprint(hash) => Some(hash),
            Who::Keys(_) | Who::Own(..) => None,
        }
    }
}

impl fmt::Debug for Identity {
    /// Shows four bytes of the hash: enough to distinguish two identities, too little to guess keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Keys([a, b, c, d, ..]) | Who::Fingerprint([a, b, c, d, ..]) => {
                write!(f, "Identity({a:02x}{b:02x}{c:02x}{d:02x})")
            }
            Who::Own(source, _) => write!(f, "Identity({})", source.map_or("own", Source::name)),
        }
    }
}
