//! The id of a project, asked of IAM.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::error::{ApiError, Kind};
use super::flight::Flight;
use super::http::{Call, Signer, json};
use super::{Caller, Cloud, Identity, Region};

const OPERATION: &str = "KeystoneListProjects";

/// Identities that are remembered at most; keys of pods come and go.
const REMEMBERED: usize = 1024;

/// Projects by who asked, and where. Nothing changes them, so they are kept. Another file of
/// credentials is another identity.
#[derive(Default)]
pub(super) struct Projects(Mutex<HashMap<(Identity, Region), Lookup>>);

type Lookup = Arc<Flight<String>>;

#[derive(Deserialize)]
struct List {
    projects: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

impl Projects {
    fn flight(&self, caller: &Caller) -> Lookup {
        let key = (caller.credentials.identity(), caller.region.clone());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }
}

impl Cloud {
    /// The project that a caller's secrets are in: given, else that of the credentials, else
    /// IAM's for the region, looked up once per identity and region.
    ///
    /// # Errors
    /// [`Kind::Configuration`] where IAM knows none or several, and those of any call.
    pub async fn project(&self, caller: &Caller, deadline: Instant) -> Result<String, ApiError> {
        if let Some(project) = &caller.project {
            return check(project.clone());
        }
        if self.is_home(&caller.region)
            && let Some(project) = caller.credentials.project(deadline).await?
        {
            return check(project);
        }
        self.0
            .projects
            .flight(caller)
            .get(
                OPERATION,
                deadline,
                |_| true,
                async || self.look_up(caller, deadline).await,
            )
            .await
    }

    /// Whether the project that comes with the process's own keys is one of this region.
    pub(super) fn is_home(&self, region: &Region) -> bool {
        self.0.home.as_ref().is_none_or(|home| home == region)
    }

    async fn look_up(&self, caller: &Caller, deadline: Instant) -> Result<String, ApiError> {
        let region = &caller.region;
        let base = self.0.endpoints.iam(region)?;
        let query = [("name".to_owned(), region.to_string())];
        let call = Call {
            operation: OPERATION,
            method: Method::GET,
            base: &base,
            path: &["v3", "projects"],
            query: &query,
            body: bytes::Bytes::new(),
            idempotent: true,
            limit: None,
        };
        let signer = Signer {
            credentials: &caller.credentials,
            project: None,
        };
        let list: List = self.0.sender.send(&call, signer, deadline, json).await?;
        let wrong = |text: String| ApiError::local(OPERATION, Kind::Configuration, text);
        match list.projects.as_slice() {
            [project] => check(project.id.clone()),
            [] => Err(wrong(format!(
                "IAM knows no project named {region} for these credentials; set projectId, or check the region"
            ))),
            several => Err(wrong(format!(
                "IAM knows {} projects named {region} for these credentials; set projectId to the one that is meant",
                several.len()
            ))),
        }
    }
}

/// An id goes into paths and headers.
fn check(project: String) -> Result<String, ApiError> {
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
        Kind::Configuration,
        format!(
            "{shown:?} is not a project id: expected 1 to 64 letters, digits, _ and - (32 hex digits as a rule)"
        ),
    ))
}
