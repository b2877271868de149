//! Looks up the project ID of a region in IAM.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use http::Method;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::call::{Call, CallLoop, Signer};
use super::credentials::{Credentials, Identity};
use super::error::{ApiError, ErrorKind};
use super::rate_limit::{RateLimiter, Turn};
use super::region::Region;
use super::transport::body::json;
use crate::util::namespace_sizes::NamespaceSizes;
use crate::util::single_flight::CachedFetch;

const OPERATION: &str = "KeystoneListProjects";

/// Most look-ups remembered: keys of pods come and go, and classes choose the region. If there are more, the
/// tenant with the most loses its own.
const MAX_REMEMBERED: usize = 1024;
/// A failure that IAM has answered with is not asked for again in this time.
const REMEMBER_FAILURE: Duration = Duration::from_secs(10);

/// Project IDs by identity and region. They never change, so they are kept; a changed credentials
/// file is another identity.
pub(super) struct Projects {
    known: Mutex<KnownProjects>,
    iam: Arc<Iam>,
}

struct Iam {
    calls: Arc<CallLoop>,
    limiter: RateLimiter,
    /// How the user sets the project instead.
    setting: &'static str,
}

#[derive(Default)]
struct KnownProjects {
    lookups: HashMap<(Identity, Region), (Arc<Lookup>, Instant)>,
    by_tenant: NamespaceSizes,
}

/// The project of an identity in a region.
struct Lookup {
    project: CachedFetch<String, ApiError>,
    state: Mutex<LookupState>,
    /// The tenant to which it counts: the first that asked.
    tenant: String,
}

#[derive(Default)]
struct LookupState {
    failure: Option<(ApiError, Instant)>,
    /// The turn of all callers that wait.
    turn: Turn,
}

#[derive(Deserialize)]
struct ProjectList {
    projects: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

impl Projects {
    /// No projects yet.
    pub(super) fn new(calls: Arc<CallLoop>, limiter: RateLimiter, setting: &'static str) -> Self {
        Self {
            known: Mutex::default(),
            iam: Arc::new(Iam {
                calls,
                limiter,
                setting,
            }),
        }
    }

    /// The project that IAM, at `base`, has for these credentials and region. Concurrent callers share
    /// one request, and its failure for some seconds; it uses the turns of all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if IAM knows none or several, and those of any call.
    pub(super) async fn get(
        &self,
        base: Url,
        region: &Region,
        credentials: &Credentials,
        turn: &Turn,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let lookup = self.lookup(credentials.identity(), region, turn);
        if let Some(failure) = lookup.failure() {
            return Err(failure);
        }
        let turn = lookup.join(turn);
        let request = || {
            let (iam, lookup, turn) = (Arc::clone(&self.iam), Arc::clone(&lookup), turn.clone());
            let (region, credentials) = (region.clone(), credentials.clone());
            async move {
                let found = iam.project(base, region, credentials, turn, deadline).await;
                found.inspect_err(|error| lookup.note(error))
            }
            .boxed()
        };
        let lost = |error| ApiError::from_flight(OPERATION, error);
        (lookup.project)
            .get(deadline, |_| true, request, lost)
            .await
    }

    fn lookup(&self, identity: Identity, region: &Region, turn: &Turn) -> Arc<Lookup> {
        let key = (identity, region.clone());
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lookup, used)) = known.lookups.get_mut(&key) {
            *used = now;
            return Arc::clone(lookup);
        }
        let tenant = turn.names().first().map(ToString::to_string);
        let lookup = Arc::new(Lookup {
            project: CachedFetch::default(),
            state: Mutex::default(),
            tenant: tenant.unwrap_or_default(),
        });
        known.add(key, Arc::clone(&lookup), now);
        lookup
    }
}

impl KnownProjects {
    fn add(&mut self, key: (Identity, Region), lookup: Arc<Lookup>, now: Instant) {
        self.by_tenant.add(&lookup.tenant, 1);
        self.lookups.insert(key, (lookup, now));
        if self.by_tenant.total() <= MAX_REMEMBERED {
            return;
        }
        let largest = self.by_tenant.largest().unwrap_or_default();
        let of_largest = (self.lookups.iter()).filter(|(_, (lookup, _))| lookup.tenant == largest);
        let oldest = of_largest.min_by_key(|(_, (_, used))| *used);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone())
            && let Some((lookup, _)) = self.lookups.remove(&oldest)
        {
            self.by_tenant.subtract(&lookup.tenant, 1);
        }
    }
}

impl Lookup {
    /// Remembers an error if IAM itself gave it: others depend on the time that the caller had, and an outage
    /// may end at any time.
    fn note(&self, error: &ApiError) {
        let is_answer = error.status.is_some() && !error.kind.is_outage();
        if is_answer || error.kind == ErrorKind::Configuration {
            self.state().failure = Some((error.clone(), Instant::now()));
        }
    }

    fn failure(&self) -> Option<ApiError> {
        let state = self.state();
        let (error, at) = state.failure.as_ref()?;
        (at.elapsed() < REMEMBER_FAILURE).then(|| error.clone())
    }

    /// Joins the turn of those that wait.
    fn join(&self, turn: &Turn) -> Turn {
        let mut state = self.state();
        if !state.turn.is_in_use() {
            state.turn = Turn::default();
        }
        state.turn.join(turn);
        state.turn.clone()
    }

    fn state(&self) -> MutexGuard<'_, LookupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iam {
    async fn project(
        &self,
        base: Url,
        region: Region,
        credentials: Credentials,
        turn: Turn,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let setting = self.setting;
        let query = [("name".to_owned(), region.to_string())];
        let call = Call {
            operation: OPERATION,
            method: Method::GET,
            base: &base,
            path: &["v3", "projects"],
            query: &query,
            body: bytes::Bytes::new(),
            idempotent: true,
            limiter: &self.limiter,
            turn: &turn,
        };
        let signer = Signer {
            credentials: &credentials,
            project: None,
        };
        let list = self.calls.run(&call, signer, deadline, json).await;
        let list: ProjectList = list.map_err(|error| match error.kind {
            ErrorKind::Denied => error.and(&format!("or set {setting}")),
            _ => error,
        })?;
        let wrong = |text: String| ApiError::local(OPERATION, ErrorKind::Configuration, text);
        match list.projects.as_slice() {
            [project] => check(project.id.clone()),
            [] => Err(wrong(format!(
                "IAM knows no project named {region} for these credentials; check the region, or set {setting}"
            ))),
            several => Err(wrong(format!(
                "IAM knows {} projects named {region} for these credentials; set {setting} to the right one",
                several.len()
            ))),
        }
    }
}

/// Checks a project ID, which goes into paths and headers.
pub(super) fn check(project: String) -> Result<String, ApiError> {
    let good = (1..=64).contains(&project.len())
        && project
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if good {
        return Ok(project);
    }
    let shown: String = project.chars().take(64).collect();
    Err(ApiError::local(
        OPERATION,
        ErrorKind::Configuration,
        format!(
            "{shown:?} is not a project ID: expected 1 to 64 letters, digits, _ and - (usually 32 hex digits)"
        ),
    ))
}
