//! One rule of a policy.

use super::glob::Glob;

/// One rule: it allows what matches all of its lists.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) namespaces: Vec<Glob>,
    pub(super) secrets: Vec<Glob>,
    /// `None` allows any region.
    pub(super) regions: Option<Vec<Glob>>,
    /// `None` allows any project, also one that is not known yet.
    pub(super) projects: Option<Vec<Glob>>,
}
