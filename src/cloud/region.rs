//! Regions of Huawei Cloud.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Regions that have CSMS, all at `https://kms.<region>.myhuaweicloud.com`
/// (Huawei's Go SDK 0.1.188, `services/csms/v1/region`).
pub(super) const WITH_CSMS: [&str; 30] = [
    "ae-ad-1",
    "af-north-1",
    "af-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "cn-east-2",
    "cn-east-3",
    "cn-east-4",
    "cn-east-5",
    "cn-north-1",
    "cn-north-11",
    "cn-north-12",
    "cn-north-2",
    "cn-north-4",
    "cn-north-9",
    "cn-south-1",
    "cn-south-2",
    "cn-southwest-2",
    "cn-southwest-3",
    "la-north-2",
    "la-south-2",
    "me-east-1",
    "my-kualalumpur-1",
    "na-mexico-1",
    "ru-moscow-1",
    "sa-brazil-1",
    "tr-west-1",
];

/// Those of [`WITH_CSMS`] without an IAM host of their own (Huawei's Go SDK 0.1.188,
/// `services/iam/v3/region`); the global host serves them.
const WITHOUT_IAM: [&str; 4] = [
    "cn-north-11",
    "cn-southwest-3",
    "ap-southeast-5",
    "af-north-1",
];

/// A region ID such as `cn-north-4`. Any well-formed ID is accepted; whether Huawei has the region
/// matters only if its endpoint must be derived. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

/// Not a region ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a region ID: expected lower-case letters, digits and single dashes, such as cn-north-4"
)]
pub struct InvalidRegion(String);

impl Region {
    /// The ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Huawei's SDKs list it as a region with CSMS.
    pub fn is_known(&self) -> bool {
        WITH_CSMS.contains(&self.as_str())
    }

    /// Whether it has an IAM host of its own.
    pub(super) fn has_iam(&self) -> bool {
        self.is_known() && !WITHOUT_IAM.contains(&self.as_str())
    }

    /// The known region with the most similar name.
    pub fn nearest_known(&self) -> &'static str {
        let likeness = |known: &str| strsim::jaro_winkler(known, &self.0);
        WITH_CSMS
            .into_iter()
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .unwrap_or(WITH_CSMS[0])
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, InvalidRegion> {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let good = text.len() <= 63
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.split('-').all(part);
        if good {
            Ok(Self(text.into()))
        } else {
            // Quote the invalid ID, but at most its beginning.
            Err(InvalidRegion(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_the_wrong_form_are_refused() {
        for text in [
            "",
            "-",
            "cn--north",
            "CN-NORTH-4",
            "cn_north",
            "a/b",
            "4cn",
            "cn-",
            "é",
            "a.b",
        ] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }
}
