//! The operator's policy: which namespaces may use which secrets, in which regions and projects.
//!
//! A ServiceAccount's list protects only where tenants cannot write ServiceAccounts; the policy is a file that
//! they cannot write. It is checked at every Mount, in what the controller polls, and by `lint --policy`, each
//! time as it is at that moment. Without a file, everything is allowed.

mod check;
mod file;
mod glob;
mod problems;
mod rule;
mod yaml;

pub use check::{Denial, DeniedPart, Place, Policy};
pub use file::{PolicyError, PolicyWatch, RELOAD_PERIOD};
pub use glob::{Glob, GlobKind};
pub use problems::PolicyProblem;
pub use yaml::{MAX_GLOBS, MAX_POLICY_BYTES, MAX_RULES};
