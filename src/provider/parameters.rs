//! What a SecretProviderClass says, as far as it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::interval::RotationPollInterval;

/// Parameters that decide as whom, where and how often is asked, so count only as the
/// SecretProviderClass has them: a pod's volumeAttributes look the same to a provider.
pub const PROTECTED: [&str; 6] = [
    "region",
    "failoverRegion",
    "projectId",
    "credentials",
    "agency",
    INTERVAL,
];

/// Interval of the volumes of one class.
pub const INTERVAL: &str = "rotationPollInterval";

/// All parameters that are read.
pub const PARAMETERS: [&str; 1 + PROTECTED.len()] = {
    let mut all = ["objects"; 1 + PROTECTED.len()];
    let mut index = 0;
    while index < PROTECTED.len() {
        all[1 + index] = PROTECTED[index];
        index += 1;
    }
    all
};

/// The SecretProviderClass's parameters, overlaid by the pod's volumeAttributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// The YAML list.
    pub objects: Option<String>,
    /// Values of [`PROTECTED`], in that order.
    pub protected: [Option<String>; PROTECTED.len()],
    /// Parameters that are not known.
    pub unknown: Vec<String>,
}

impl Parameters {
    /// Those of a class, with what a pod puts over its `objects`.
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

    /// The value of a protected parameter; an empty one counts as not given.
    pub fn protected(&self, name: &str) -> Option<&str> {
        let at = PROTECTED.iter().position(|p| *p == name)?;
        self.protected[at].as_deref().filter(|v| !v.is_empty())
    }

    /// The class's own interval, if it has one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn interval(&self) -> Result<Option<Duration>, String> {
        let given = self
            .protected(INTERVAL)
            .map(str::parse::<RotationPollInterval>);
        given.transpose().map(|found| found.map(Duration::from))
    }
}
