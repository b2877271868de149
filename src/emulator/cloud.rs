//! The cloud behind the server: who calls, what is done, what is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, Refused, refuse};
use super::auth::{Caller, Guard, Received, Temporary};
use super::config::Config;
use super::csms::Call;
use super::faults::{Fault, Rule};
use super::model::Projects;
use super::route::Route;
use super::state;
use crate::clock::Clock;

/// Calls that are listed one by one; all are counted.
const LISTED_CALLS: usize = 10_000;

pub(super) struct Cloud {
    pub(super) config: Config,
    clock: Clock,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) projects: Projects,
    pub(super) guard: Guard,
    pub(super) faults: Vec<Rule>,
    pub(super) calls: Calls,
    /// What the emulator's clock is ahead of the real one.
    pub(super) offset: SignedDuration,
    pub(super) metadata_tokens: BTreeMap<String, Timestamp>,
    pub(super) agency_keys: Option<Temporary>,
}

/// What `/_emulator/calls` shows.
#[derive(Default, Serialize)]
pub(super) struct Calls {
    total: u64,
    counts: BTreeMap<&'static str, u64>,
    calls: VecDeque<Seen>,
}

/// One call.
#[derive(Serialize)]
pub(super) struct Seen {
    pub(super) operation: &'static str,
    pub(super) project: Option<String>,
    pub(super) secret: Option<String>,
    /// Version id or stage.
    pub(super) version: Option<String>,
    /// 0 where the connection was reset.
    pub(super) status: u16,
    pub(super) access_key: Option<String>,
    pub(super) request_id: String,
}

impl Calls {
    pub(super) fn answers(&self, operation: &str) -> Vec<u16> {
        let of_it = |seen: &&Seen| seen.operation == operation;
        self.calls
            .iter()
            .filter(of_it)
            .map(|seen| seen.status)
            .collect()
    }

    pub(super) fn add(&mut self, seen: Seen) {
        self.total += 1;
        *self.counts.entry(seen.operation).or_default() += 1;
        if self.calls.len() == LISTED_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(seen);
    }
}

impl Cloud {
    pub(super) fn new(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let projects = match &config.state {
            Some(path) => state::load(path)?,
            None => Projects::new(),
        };
        let inner = Inner {
            projects,
            guard: Guard::new(&config.accounts, config.lock_keys),
            faults: Vec::new(),
            calls: Calls::default(),
            offset: SignedDuration::ZERO,
            metadata_tokens: BTreeMap::new(),
            agency_keys: None,
        };
        Ok(Self {
            config,
            clock,
            inner: Mutex::new(inner),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self, inner: &Inner) -> Timestamp {
        self.clock.now() + inner.offset
    }

    /// Region of a project id, by the accounts that name it.
    pub(super) fn region(&self, project: &str) -> Option<&str> {
        let mut all = self.config.accounts.iter().flat_map(|one| &one.projects);
        all.find(|(_, id)| *id == project)
            .map(|(region, _)| region.as_str())
    }

    /// Makes a signed call: who, then what. The access key is told even of what is refused later.
    pub(super) fn call(
        &self,
        route: &Route,
        request: &Received<'_>,
        fault: &Fault,
        access_key: &mut Option<String>,
    ) -> Result<Answer, Refused> {
        let mut inner = self.lock();
        if fault.expire_tokens {
            inner.guard.expire_tokens();
            inner.agency_keys = None;
        }
        let skew = SignedDuration::from_secs(fault.clock_skew_seconds.unwrap_or(0));
        let now = self.now(&inner) + skew;
        let caller = inner.guard.check(request, now).map_err(|refusal| {
            let message = format!("Incorrect IAM authentication information: {refusal}");
            refuse(401, "APIG.0301", message)
        })?;
        *access_key = Some(caller.access_key.clone());
        match &route.project {
            None => Ok(self.projects(&caller, request.query)),
            Some(project) => self.csms(&mut inner, &caller, route, project, request, now),
        }
    }

    /// IAM: the caller's projects, those named `name` where it is given.
    fn projects(&self, caller: &Caller, query: &str) -> Answer {
        let wanted = url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == "name")
            .map(|(_, value)| value.into_owned());
        let account = self.config.accounts.get(caller.account);
        let projects: Vec<_> = account
            .iter()
            .flat_map(|account| &account.projects)
            .filter(|(region, _)| wanted.as_ref().is_none_or(|name| name == *region))
            .map(|(region, id)| json!({"id": id, "name": region, "enabled": true}))
            .collect();
        Answer::ok(json!({"projects": projects, "links": {"self": "/v3/projects"}}))
    }

    fn csms(
        &self,
        inner: &mut Inner,
        caller: &Caller,
        route: &Route,
        project: &str,
        request: &Received<'_>,
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        let account = self.config.accounts.get(caller.account);
        let account = account
            .filter(|account| account.projects.values().any(|id| id == project))
            .ok_or_else(|| refuse(403, "CSMS.0302", "No permission for this project"))?;
        let call = Call {
            route,
            query: request.query,
            body: request.body,
            rights: account.rights,
            now: now.as_millisecond(),
            latest: self.config.latest,
            not_found: self.config.not_found,
            delete_status: self.config.delete_status,
        };
        // A call works on a copy (values are shared), so that a refused one changes nothing.
        let mut projects = inner.projects.clone();
        let answer = call.make(projects.entry(project.to_owned()).or_default())?;
        if request.method != "GET" {
            self.keep(inner, projects)?;
        }
        Ok(answer)
    }

    /// Writes the state file, if there is one, and only then takes the change over.
    pub(super) fn keep(&self, inner: &mut Inner, projects: Projects) -> Result<(), Refused> {
        if let Some(path) = &self.config.state {
            state::save(path, &projects).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "cannot write the state file");
                refuse(500, "CSMS.0001", "Internal error")
            })?;
        }
        inner.projects = projects;
        Ok(())
    }

    /// The `Date` header's text.
    pub(super) fn date(&self, fault: &Fault) -> String {
        let skew = SignedDuration::from_secs(fault.clock_skew_seconds.unwrap_or(0));
        let now = self.now(&self.lock()) + skew;
        now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

/// Header that the official SDK looks for, on every answer.
pub(super) const REQUEST_ID: &str = "x-request-id";
