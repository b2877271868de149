//! Rotation across nodes: the leader polls for the cluster, every pod gets new versions, and rotation
//! survives the failure of any part.

mod delivery;
mod edits;
mod leaders;
mod polling;
mod random;
mod tenants;
mod without_leader;
