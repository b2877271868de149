//! dew-provider: a provider for the Kubernetes Secrets Store CSI Driver that reads secrets from
//! Huawei Cloud CSMS.
//!
//! # Two flows
//!
//! ## A mount
//!
//! The driver calls the provider through a Unix socket ([`node::socket`]). [`node::mount`] runs seven steps:
//! `service.rs` calls the first, `Pipeline::mount` in `mod.rs` the others. Each is a file in
//! `src/node/mount/`:
//!
//! 1. `request.rs` parses the driver's message.
//! 2. `objects.rs` parses the list of secrets, with the parser in [`class`].
//! 3. `authorize.rs` checks the ServiceAccount's list and the operator's [`policy`], and refuses overrides
//!    by the pod.
//! 4. `resolve.rs` determines the region, project, credentials and cache keys.
//! 5. `fetch.rs` gets the versions from the [`cache`], which fetches missing ones through [`cloud`].
//! 6. `select.rs` extracts the contents of the files.
//! 7. `response.rs` builds the response: files, modes, and a version for each file.
//!
//! ## A new version
//!
//! The elected leader polls CSMS for the whole cluster ([`controller`]). The steps are files in
//! `src/controller/`:
//!
//! 1. `election.rs`: the pods elect a leader through a Lease.
//! 2. `plan.rs`: the leader finds out which secrets pods follow.
//! 3. `scheduler.rs`, `poll.rs`, `probe.rs`: it polls the versions of each such secret once per interval.
//! 4. `publish.rs`: it publishes the versions as SecretRevisions ([`kube`]).
//!
//! Each node delivers new versions to its pods ([`node::delivery`]). The steps are files in
//! `src/node/delivery/`; the loop in `reconciler.rs` starts the second and the third:
//!
//! 1. `revision_watch.rs` applies SecretRevisions, and `mod.rs` the heartbeats, to the [`cache`]. There,
//!    `leader_view.rs` compares them with the cached versions.
//! 2. `refresh.rs` fetches a new version into the cache.
//! 3. `nudge.rs` makes the driver update the volumes that contain another version ([`node::volumes`]). The
//!    driver then calls Mount again.
//!
//! # Map
//!
//! | module | contents |
//! |---|---|
//! | [`cli`], [`serve`] | the command line; the assembly of a `serve` process |
//! | [`node`] | what runs on every node: socket, mounts, volumes, delivery, admin pages |
//! | [`controller`] | what runs once in a cluster, in the elected pod |
//! | [`class`] | what a SecretProviderClass says |
//! | [`policy`] | what the operator allows namespaces to use |
//! | [`cache`] | the secret versions cached on a node, and the leader's view of them |
//! | [`cloud`] | the client for Huawei Cloud |
//! | [`envelope`] | encrypted files: messages with their data key wrapped in the header |
//! | [`envelope_sdk`] | messages of Huawei's Encryption SDK |
//! | [`signature`] | detached signatures of files |
//! | [`kube`] | what is read from and written to the API server |
//! | [`lint`] | offline checks of manifests |
//! | [`telemetry`] | logs and metrics |
//! | [`proto`], [`util`] | gRPC messages; building blocks |
//! | `sim` | the emulator of Huawei Cloud and stand-ins for the API server and the driver (feature `sim`) |
//!
//! # Glossary
//!
//! - **Class**: a SecretProviderClass. **Object**: one entry of its `objects` list.
//! - **Follow**: a pod follows a secret by `latest` or by a stage. The secret **moves** when `latest` or the
//!   stage resolves to another version.
//! - **Interval**: `rotation_poll_interval`, or the class's own: how often a followed secret is polled.
//! - **Caller**: the region, project and credentials of a request. **Identity**: what distinguishes the
//!   credentials of one caller from those of another. **Fingerprint**: an identity that is the same after a
//!   restart.
//! - **Revision**: what the leader published about a secret, as a SecretRevision. **Heartbeat**: the leader's
//!   statement on the Lease that the revisions were current at that time.
//! - **Covered**: a secret with a revision and a recent heartbeat. The nodes do not poll it themselves.
//! - **Spread**: the time over which the nodes spread their fetches of a new version.
//! - **Confirmed**: known to be current, by a fetch or by the leader's heartbeat.
//! - **Outage**: the cloud is unreachable, throttles or fails. **Rejection**: it denies a request, or the
//!   secret does not exist or is disabled. **Stale**: served from the cache during an outage.
//! - **Revoked**: a mounted volume whose ServiceAccount no longer lists its secrets. It keeps its files and
//!   follows nothing.
//! - **Outdated**: a cached version whose secret has moved, or a volume that contains another version than
//!   the cache or the files of an earlier class. **Drift**: how a volume is outdated.
//! - **Nudge**: a call that makes the driver update a volume now, instead of when kubelet remounts it.

pub mod cache;
pub mod class;
pub mod cli;
pub mod cloud;
pub mod controller;
pub mod envelope;
pub mod envelope_sdk;
pub mod kube;
pub mod lint;
pub mod node;
pub mod policy;
pub mod proto;
pub mod serve;
pub mod signature;
#[cfg(feature = "sim")]
pub mod sim;
pub mod telemetry;
pub mod util;
