//! CSMS, IAM's project lookup and the metadata service in one process, for the demo and the tests.
//!
//! All regions are served on one address; the project id in the path tells account and region.
//! Signatures are recomputed by code that shares nothing with the client's signer.
//!
//! Beside the cloud's own paths it serves, unsigned and therefore for loopback only:
//!
//! | Path | Does |
//! |---|---|
//! | `POST /_emulator/faults` | adds a rule, or a list of rules (below) |
//! | `GET`, `DELETE /_emulator/faults` | lists the rules not used up; clears them |
//! | `GET`, `DELETE /_emulator/calls` | `{total, counts, calls: [{operation, project, secret, version, status, access_key, request_id}]}`, of signed calls; starts again |
//! | `PUT /_emulator/secrets/{name}/state` | `{"state": "ENABLED", "DISABLED", "FROZEN" or "PENDING_DELETE"}` |
//! | `PUT /_emulator/clock` | `{"offset_seconds": n}`: how far the emulator's clock is ahead |
//!
//! A rule is `{"match": {…}, "times": n, "fault": {…}}`. `match` takes `operation` (the API's name,
//! such as `ShowSecretVersion`; `KeystoneListProjects` for IAM), `secret`, `project`, `region`, and
//! `after` (so many matching calls go well first); left out, it matches every signed call. Without
//! `times` a rule holds until cleared. A fault has one or more of:
//!
//! | Field | Effect |
//! |---|---|
//! | `status`, `code`, `message`, `retry_after` | an error answer; `Retry-After` in seconds |
//! | `delay_ms` | waits first |
//! | `reset` | TCP reset in place of an answer; the call itself is made |
//! | `garbage`: `"json"` or `"html"` | a body that is no answer |
//! | `truncate`: n | the connection ends after n bytes of the body |
//! | `wrong_content_length` | `Content-Length` names half of the body |
//! | `slow_body`: `{chunk_bytes, delay_ms}` | the body drips |
//! | `clock_skew_seconds` | the gateway's clock is off for this call |
//! | `expire_tokens` | all temporary keys given so far are expired from this call on |

mod answer;
mod auth;
mod cloud;
mod config;
mod control;
mod csms;
mod faults;
mod metadata;
mod model;
mod route;
mod server;
mod state;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
pub use config::{
    Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, LatestMeans,
    Rights, TokenMode,
};

/// Bytes on their way in a connection without a network.
const IN_MEMORY: usize = 8 * 1024;
/// How long a stop waits for requests in flight.
const STOP: Duration = Duration::from_secs(5);

/// A running emulator. Stops taking connections when dropped.
pub struct Emulator {
    address: SocketAddr,
    cloud: Arc<cloud::Cloud>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Emulator {
    /// Serves on the listener, from tasks of the current runtime. Fails where the state file cannot
    /// be read; it is then left as it is.
    pub fn start(listener: TcpListener, config: Config, clock: Clock) -> Result<Self> {
        let address = listener.local_addr().context("listener has no address")?;
        let cloud = Arc::new(cloud::Cloud::new(config, clock)?);
        let router = server::router(Arc::clone(&cloud));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(server::serve(listener, router, stop.clone(), tasks.clone()));
        Ok(Self {
            address,
            cloud,
            stop,
            tasks,
        })
    }

    /// One that is reached by [`Emulator::connect`] only.
    ///
    /// # Errors
    /// Where the state file cannot be read.
    pub fn in_memory(config: Config, clock: Clock) -> Result<Self> {
        Ok(Self {
            address: ([127, 0, 0, 1], 80).into(),
            cloud: Arc::new(cloud::Cloud::new(config, clock)?),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// A connection without a network.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (theirs, ours) = tokio::io::duplex(IN_MEMORY);
        let router = server::router(Arc::clone(&self.cloud));
        let serving = server::connection(ours, router, self.stop.clone());
        self.tasks.spawn(serving);
        theirs
    }

    /// `http://address:port`, for CSMS, IAM and the metadata service alike.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As `POST /_emulator/faults`.
    ///
    /// # Errors
    /// What is not a rule, or a list of them.
    pub fn add_faults(&self, rules: &str) -> Result<()> {
        Ok(control::take_faults(&self.cloud, rules.as_bytes())?)
    }

    /// As `DELETE /_emulator/faults`.
    pub fn clear_faults(&self) {
        self.cloud.lock().faults.clear();
    }

    /// As `DELETE /_emulator/calls`.
    pub fn clear_calls(&self) {
        self.cloud.lock().calls = Default::default();
    }

    /// HTTP statuses of the calls of an operation, in their order; 0 is a reset connection.
    pub fn answers(&self, operation: &str) -> Vec<u16> {
        self.cloud.lock().calls.answers(operation)
    }

    /// Takes no more connections and waits up to five seconds for requests in flight.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("requests were still in flight at the stop");
        }
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A random id in the shape of a UUID.
fn uuid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
