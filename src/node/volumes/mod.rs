//! The volumes that this node has mounted: what is in them, and whether they are outdated.

mod changes;
pub mod freshness;
mod record;
mod registry;

pub use record::{Delivered, MountRecord, SettingsHash, VolumeId};
pub use registry::{Drift, MountChange, MountFailure, Volumes};
