//! Credentials: fixed keys that a pod brings, or the process's own.

mod access_keys;
mod chain;
mod ecs_agency;
mod file;
pub(super) mod fingerprint;
mod handle;
mod identity;
mod source;
#[cfg(test)]
mod tests;

pub use access_keys::AccessKeys;
pub(super) use chain::CredentialChain;
pub(super) use ecs_agency::EcsAgency;
pub use handle::Credentials;
pub use identity::Identity;
pub use source::Source;
