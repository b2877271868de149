//! An emulated Huawei Cloud in one process: CSMS, KMS, IAM's project lookup and the ECS metadata
//! service.
//!
//! One address serves all regions; the project ID in the path determines account and region.
//! Signatures are verified by code that shares nothing with the client's signer.
//!
//! Besides the cloud's own paths, the emulator serves control paths. They are unsigned, so keep the
//! address on loopback.
//!
//! | Path | Effect |
//! |---|---|
//! | `POST /_emulator/faults` | adds a fault rule or a list of rules (see below) |
//! | `GET`, `DELETE /_emulator/faults` | lists the remaining rules; removes them |
//! | `GET`, `DELETE /_emulator/calls` | returns `{total, counts, calls: [{operation, project, secret, version, key, status, access_key, request_id}]}` for signed calls; resets it |
//! | `PUT /_emulator/secrets/{name}/state` | sets `{"state": "ENABLED"}`, `"DISABLED"`, `"FROZEN"` or `"PENDING_DELETE"` |
//! | `PUT /_emulator/clock` | sets `{"offset_seconds": n}`: how far the emulator's clock is ahead |
//!
//! A rule is `{"match": {…}, "times": n, "fault": {…}}`. `match` takes `operation` (the API's name,
//! such as `ShowSecretVersion`; `KeystoneListProjects` for IAM; `PutMetadataToken` and `GetSecurityKey`
//! for the metadata service), `secret`, `key` (the ID of a KMS key), `project`, `region`, and
//! `after` (matching calls that succeed first). An omitted field matches every signed call. Without
//! `times`, a rule applies until it is cleared. A fault has one or more of these fields:
//!
//! | Field | Effect |
//! |---|---|
//! | `status`, `code`, `message`, `retry_after` | returns an error; `Retry-After` in seconds |
//! | `delay_ms` | waits before responding |
//! | `reset` | executes the call, then sends a TCP reset instead of the response |
//! | `body` | replaces the body, whatever the status |
//! | `garbage`: `"json"` or `"html"` | replaces the body with an invalid one |
//! | `truncate`: n | closes the connection after n bytes of the body |
//! | `wrong_content_length` | sets `Content-Length` to half the length of the body |
//! | `slow_body`: `{chunk_bytes, delay_ms}` | sends the body in chunks, each after a delay |
//! | `clock_skew_seconds` | shifts the gateway's clock for this call |
//! | `expire_tokens` | expires all temporary keys issued so far, before this call |

mod auth;
mod cloud;
mod config;
mod control;
mod csms;
mod faults;
mod kms;
mod metadata;
mod model;
mod reply;
mod route;
mod server;
mod state_file;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::util::clock::Clock;
pub use config::{
    Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, LatestMeans,
    Rights, TokenMode,
};

/// Buffer size, in bytes, of each direction of an in-memory connection.
const IN_MEMORY_BUFFER: usize = 8 * 1024;
/// How long [`Emulator::shutdown`] waits for in-flight requests.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A running emulator. It stops accepting connections when dropped.
pub struct Emulator {
    address: SocketAddr,
    cloud: Arc<cloud::EmulatedCloud>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Emulator {
    /// Starts serving on `listener`, in tasks of the current runtime.
    ///
    /// # Errors
    /// If the state file cannot be read or is damaged. The file is left unchanged.
    pub fn start(listener: TcpListener, config: Config, clock: Clock) -> Result<Self> {
        let address = listener.local_addr().context("listener has no address")?;
        let cloud = Arc::new(cloud::EmulatedCloud::new(config, clock)?);
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

    /// Creates an emulator that is reachable only through [`Emulator::connect`].
    ///
    /// # Errors
    /// If the state file cannot be read or is damaged.
    pub fn in_memory(config: Config, clock: Clock) -> Result<Self> {
        Ok(Self {
            address: ([127, 0, 0, 1], 80).into(),
            cloud: Arc::new(cloud::EmulatedCloud::new(config, clock)?),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Opens an in-memory connection and returns the client's end.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (client_end, server_end) = tokio::io::duplex(IN_MEMORY_BUFFER);
        let router = server::router(Arc::clone(&self.cloud));
        let serving = server::connection(server_end, router, self.stop.clone());
        self.tasks.spawn(serving);
        client_end
    }

    /// Base URL, `http://address:port`, of CSMS, IAM and the metadata service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds fault rules, as `POST /_emulator/faults` does. `rules` is the JSON of one rule or of a
    /// list.
    ///
    /// # Errors
    /// If `rules` is neither.
    pub fn add_faults(&self, rules: &str) -> Result<()> {
        Ok(control::add_fault_rules(&self.cloud, rules.as_bytes())?)
    }

    /// Removes all fault rules, as `DELETE /_emulator/faults` does.
    pub fn clear_faults(&self) {
        self.cloud.lock().faults.clear();
    }

    /// Resets the call log, as `DELETE /_emulator/calls` does.
    pub fn clear_calls(&self) {
        self.cloud.lock().calls = Default::default();
    }

    /// HTTP statuses of the calls of an operation, oldest first; 0 means that the connection was
    /// reset.
    pub fn answers(&self, operation: &str) -> Vec<u16> {
        self.cloud.lock().calls.statuses(operation)
    }

    /// Stops accepting connections and waits up to five seconds for in-flight requests.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped with requests still in flight");
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
