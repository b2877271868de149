//! The Kubernetes side: what is watched, read and written.

pub mod allow_lists;
pub mod classes;
pub mod client;
pub mod events;
pub mod lease;
pub mod pod_statuses;
pub mod pods;
pub mod revisions;
pub mod service_accounts;
mod trimmed;

pub use allow_lists::AllowLists;
pub use classes::{Classes, SecretProviderClass, SecretProviderClassSpec};
pub use client::{Access, KubeError, config};
pub use events::{EventReason, EventTarget, Events};
pub use lease::LeaseWatch;
pub use pod_statuses::{ClassMounts, MountCounts};
pub use pods::{PodRef, Pods};
pub use revisions::{Condition, SecretRevision, SecretRevisionSpec, SecretRevisionStatus};
pub use service_accounts::{AllowListMode, ServiceAccounts};
