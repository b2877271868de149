//! Looks up the project ID of a region in IAM.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use http::Method;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::call::{Call, CallLoop, Signer};
use super::credentials::{Credentials, Identity};
use super::error::{ApiError, ErrorKind};
use super::region::Region;
use super::transport::body::json;
use crate::util::single_flight::CachedFetch;

const OPERATION: &str = "KeystoneListProjects";

/// Most identities remembered; keys of pods come and go.
const MAX_REMEMBERED: usize = 1024;

/// Project IDs by identity and region. They never change, so they are kept; a changed credentials
/// file is another identity.
pub(super) struct Projects {
    known: Mutex<HashMap<(Identity, Region), Lookup>>,
    /// How the user sets the project instead.
    setting: &'static str,
}

type Lookup = Arc<CachedFetch<String, ApiError>>;

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
    pub(super) fn new(setting: &'static str) -> Self {
        Self {
            known: Mutex::default(),
            setting,
        }
    }

    /// The project that IAM, at `base`, has for these credentials and region. Concurrent callers share
    /// one request.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if IAM knows none or several, and those of any call.
    pub(super) async fn get(
        &self,
        calls: &Arc<CallLoop>,
        base: Url,
        region: &Region,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let request = || {
            let (calls, region) = (Arc::clone(calls), region.clone());
            let (credentials, setting) = (credentials.clone(), self.setting);
            async move {
                let found =
                    list_projects(calls, base, region, credentials, setting, deadline).await;
                found.map_err(|error| match error.kind {
                    ErrorKind::Denied => error.and(&format!("or set {setting}")),
                    _ => error,
                })
            }
            .boxed()
        };
        let lookup = self.lookup(credentials.identity(), region);
        let lost = |error| ApiError::from_flight(OPERATION, error);
        lookup.get(deadline, |_| true, request, lost).await
    }

    fn lookup(&self, identity: Identity, region: &Region) -> Lookup {
        let key = (identity, region.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED && !known.contains_key(&key) {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }
}

async fn list_projects(
    calls: Arc<CallLoop>,
    base: Url,
    region: Region,
    credentials: Credentials,
    setting: &'static str,
    deadline: Instant,
) -> Result<String, ApiError> {
    let query = [("name".to_owned(), region.to_string())];
    let call = Call {
        operation: OPERATION,
        method: Method::GET,
        base: &base,
        path: &["v3", "projects"],
        query: &query,
        body: bytes::Bytes::new(),
        idempotent: true,
        limiter: None,
    };
    let signer = Signer {
        credentials: &credentials,
        project: None,
    };
    let list: ProjectList = calls.run(&call, signer, deadline, json).await?;
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
