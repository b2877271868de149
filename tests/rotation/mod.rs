//! Rotation across nodes: one question for the cluster, the answer in every pod, and what happens
//! when something of it is away.

mod alone;
mod asking;
mod delivery;
mod edits;
mod leaders;
mod random;
