//! The operator's policy: at a Mount, in what the leader polls, and when its file changes.

mod admission;
mod commands;
mod mounts;
mod rotation;
