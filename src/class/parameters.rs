//! The parameters of a SecretProviderClass.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use crate::util::poll_interval::RotationPollInterval;

/// Parameters that control identity, location or polling. They are read only from the
/// SecretProviderClass: a pod's volumeAttributes, which look the same to a provider, cannot override
/// them.
pub const PROTECTED: [&str; 6] = [
    "region",
    "failoverRegion",
    "projectId",
    "credentials",
    "agency",
    INTERVAL,
];

/// Polling interval of one class.
pub const INTERVAL: &str = "rotationPollInterval";

/// All known parameters.
pub const PARAMETERS: [&str; 1 + PROTECTED.len()] = {
    let mut all = ["objects"; 1 + PROTECTED.len()];
    let mut index = 0;
    while index < PROTECTED.len() {
        all[1 + index] = PROTECTED[index];
        index += 1;
    }
    all
};

/// Whether an unknown parameter asks for an identity, as `useWorkloadCred`, `authType` and
/// `credentialsSecretName` do in classes for other providers and releases. If it were ignored, the pod would get
/// its secrets with another identity than its owner chose.
pub fn asks_for_identity(name: &str, value: &str) -> bool {
    const PARTS: [&str; 10] = [
        "auth",
        "cred",
        "identit",
        "agency",
        "role",
        "token",
        "accesskey",
        "secretkey",
        "impersonat",
        "assume",
    ];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_lowercase();
    let is_off = value.trim().is_empty() || value.trim().eq_ignore_ascii_case("false");
    !is_off && name != "author" && PARTS.iter().any(|part| name.contains(part))
}

/// The message for a parameter that [`asks_for_identity`].
pub const UNSUPPORTED_IDENTITY: &str = "asks for an identity that this release does not support: remove it, and \
     choose the identity with credentials or nodePublishSecretRef";

/// SHA-256 of the parameter `objects`: tells whether it changed where the list itself is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectsHash([u8; 32]);

impl ObjectsHash {
    /// The hash of a list.
    pub fn of(objects: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, objects.as_bytes()).as_ref());
        Self(hash)
    }
}

impl fmt::Display for ObjectsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for ObjectsHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let decoded = HEXLOWER.decode(text.as_bytes()).map_err(drop)?;
        decoded.try_into().map(Self).map_err(drop)
    }
}

/// The parameters of a SecretProviderClass, overlaid by the pod's volumeAttributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// The YAML list.
    pub objects: Option<String>,
    /// Values of [`PROTECTED`], in that order.
    pub protected: [Option<String>; PROTECTED.len()],
    /// Names of unknown parameters.
    pub unknown: Vec<String>,
}

impl Parameters {
    /// The parameters of a class, with the `objects` of a pod's attributes if they override it.
    pub fn of_class(
        class: &BTreeMap<String, String>,
        attributes: &BTreeMap<String, String>,
    ) -> Self {
        let objects = attributes.get("objects").or_else(|| class.get("objects"));
        Self {
            objects: objects.cloned(),
            protected: Self::protected_of(class),
            unknown: Vec::new(),
        }
    }

    /// The values of [`PROTECTED`] in a class.
    pub fn protected_of(class: &BTreeMap<String, String>) -> [Option<String>; PROTECTED.len()] {
        PROTECTED.map(|name| class.get(name).cloned())
    }

    /// The value of a protected parameter; an empty one counts as not set.
    pub fn protected(&self, name: &str) -> Option<&str> {
        let at = PROTECTED.iter().position(|p| *p == name)?;
        self.protected[at].as_deref().filter(|v| !v.is_empty())
    }

    /// The polling interval of the class, if it sets one.
    ///
    /// # Errors
    /// If it is not a valid interval.
    pub fn interval(&self) -> Result<Option<Duration>, String> {
        let given = self
            .protected(INTERVAL)
            .map(str::parse::<RotationPollInterval>);
        given.transpose().map(|found| found.map(Duration::from))
    }
}
