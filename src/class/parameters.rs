//! The parameters of a SecretProviderClass.

use std::collections::BTreeMap;
use std::time::Duration;

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
            protected: PROTECTED.map(|name| class.get(name).cloned()),
            unknown: Vec::new(),
        }
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
