//! Which version of a secret is meant.

/// Selects one version of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// The service's `latest`.
    Latest,
    /// A version by its ID, `v1`, `v2`, …; its value never changes.
    Version(String),
    /// The version that holds this stage.
    Stage(String),
}

/// The number of a version ID, which is `v` and digits; 0 for anything else.
pub fn version_number(id: &str) -> u32 {
    let digits = id.strip_prefix('v');
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}
