//! dew-provider: a provider for the Kubernetes Secrets Store CSI Driver that reads secrets from
//! Huawei Cloud CSMS.
//!
//! # Two flows
//!
//! **A mount.** The driver calls the provider through a Unix socket ([`node::socket`]). The pipeline in
//! [`node::mount`] checks the request against the [`class`] and the ServiceAccount, gets the versions of
//! the secrets from the [`cache`], which fetches missing ones through [`cloud`], and returns the files.
//!
//! **A new version.** The [`controller`] of the elected leader polls CSMS once for the whole cluster, and
//! publishes what moved as SecretRevisions ([`kube`]). [`node::delivery`] on each node watches them, fetches
//! the new version into the [`cache`], and makes the driver update the volumes that use it.
//!
//! # Map
//!
//! | module | contents |
//! |---|---|
//! | [`cli`], [`serve`] | the command line; the assembly of a `serve` process |
//! | [`node`] | what runs on every node: socket, mounts, volumes, delivery, admin pages |
//! | [`controller`] | what runs once in a cluster, in the elected pod |
//! | [`class`] | what a SecretProviderClass says |
//! | [`cache`] | the secret versions cached on a node, and the leader's view of them |
//! | [`cloud`] | the client for Huawei Cloud |
//! | [`kube`] | what is read from and written to the API server |
//! | [`lint`] | offline checks of manifests |
//! | [`telemetry`] | logs and metrics |
//! | [`proto`], [`util`] | gRPC messages; building blocks |
//! | `sim` | the emulator of Huawei Cloud and stand-ins for the API server and the driver (feature `sim`) |
//!
//! # Glossary
//!
//! - **Class**: a SecretProviderClass. **Object**: one entry of its `objects` list.
//! - **Follow**: a pod follows a secret by `latest` or by a stage. The secret **moves** when that resolves
//!   to another version.
//! - **Caller**: the region, project and credentials of a request. **Identity**: what distinguishes the
//!   credentials of one caller from those of another.
//! - **Revision**: what the leader published about a secret, as a SecretRevision.
//! - **Confirmed**: known to be current, by a fetch or by the leader's heartbeat.
//! - **Outdated**: a volume that contains another version than the cache, or the files of an earlier class.
//! - **Nudge**: a call that makes the driver update a volume now, instead of when kubelet remounts it.

pub mod cache;
pub mod class;
pub mod cli;
pub mod cloud;
pub mod controller;
pub mod kube;
pub mod lint;
pub mod node;
pub mod proto;
pub mod serve;
#[cfg(feature = "sim")]
pub mod sim;
pub mod telemetry;
pub mod util;
