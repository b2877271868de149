//! The emulated cloud behind the HTTP server: authenticates calls, executes and records them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::auth::{ReceivedRequest, SignatureVerifier, TemporaryKeys, VerifiedCaller};
use super::config::{Account, Config};
use super::csms::CsmsCall;
use super::faults::{Fault, FaultRule};
use super::kms::{KeyMaterial, KeysByProject, KmsCall};
use super::model::SecretsByProject;
use super::reply::{ApiRejection, ApiReply, reject};
use super::route::{ApiRoute, Service};
use super::state_file;
use crate::util::clock::Clock;

/// Most calls listed by `/_emulator/calls`; `total` and `counts` include older ones.
const MAX_LISTED_CALLS: usize = 10_000;

/// Header with the request ID, present on every response. The official SDK reads it.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// All accounts, secrets, keys, faults and recorded calls.
pub(super) struct EmulatedCloud {
    pub(super) config: Config,
    clock: Clock,
    state: Mutex<CloudState>,
}

pub(super) struct CloudState {
    pub(super) projects: SecretsByProject,
    keys: KeysByProject,
    /// Times of the latest calls of KMS, by access key, in milliseconds since 1970.
    kms_calls: BTreeMap<String, VecDeque<i64>>,
    pub(super) verifier: SignatureVerifier,
    pub(super) faults: Vec<FaultRule>,
    pub(super) calls: CallLog,
    /// How far the emulator's clock is ahead of the real one.
    pub(super) offset: SignedDuration,
    pub(super) metadata_tokens: BTreeMap<String, Timestamp>,
    pub(super) agency_keys: Option<TemporaryKeys>,
}

/// The response of `GET /_emulator/calls`.
#[derive(Default, Serialize)]
pub(super) struct CallLog {
    total: u64,
    counts: BTreeMap<&'static str, u64>,
    calls: VecDeque<LoggedCall>,
}

/// A recorded call.
#[derive(Serialize)]
pub(super) struct LoggedCall {
    pub(super) operation: &'static str,
    pub(super) project: Option<String>,
    pub(super) secret: Option<String>,
    /// Version ID or stage name.
    pub(super) version: Option<String>,
    /// ID of the KMS key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// HTTP status, or 0 if the connection was reset.
    pub(super) status: u16,
    pub(super) access_key: Option<String>,
    pub(super) request_id: String,
}

impl CallLog {
    /// Statuses of the listed calls of an operation, oldest first.
    pub(super) fn statuses(&self, operation: &str) -> Vec<u16> {
        self.calls
            .iter()
            .filter(|call| call.operation == operation)
            .map(|call| call.status)
            .collect()
    }

    pub(super) fn add(&mut self, call: LoggedCall) {
        self.total += 1;
        *self.counts.entry(call.operation).or_default() += 1;
        if self.calls.len() == MAX_LISTED_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }
}

impl EmulatedCloud {
    pub(super) fn new(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let (projects, keys) = match &config.state {
            Some(path) => state_file::load(path)?,
            None => Default::default(),
        };
        let state = CloudState {
            projects,
            keys,
            kms_calls: BTreeMap::new(),
            verifier: SignatureVerifier::new(&config.accounts, config.lock_keys),
            faults: Vec::new(),
            calls: CallLog::default(),
            offset: SignedDuration::ZERO,
            metadata_tokens: BTreeMap::new(),
            agency_keys: None,
        };
        Ok(Self {
            config,
            clock,
            state: Mutex::new(state),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CloudState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self, state: &CloudState) -> Timestamp {
        self.clock.now() + state.offset
    }

    /// Region of a project, or `None` if no account has the project.
    pub(super) fn region(&self, project: &str) -> Option<&str> {
        let mut all = self.config.accounts.iter().flat_map(|one| &one.projects);
        all.find(|(_, id)| *id == project)
            .map(|(region, _)| region.as_str())
    }

    /// Authenticates and executes a signed call. Once the signature is verified, `access_key` is
    /// set, even if the call is rejected later. `material` is for a key that the call creates.
    pub(super) fn call(
        &self,
        route: &ApiRoute,
        request: &ReceivedRequest<'_>,
        fault: &Fault,
        material: Option<KeyMaterial>,
        access_key: &mut Option<String>,
    ) -> Result<ApiReply, ApiRejection> {
        let mut state = self.lock();
        if fault.expire_tokens {
            state.verifier.expire_tokens();
            state.agency_keys = None;
        }
        let skew = SignedDuration::from_secs(fault.clock_skew_seconds.unwrap_or(0));
        let now = self.now(&state) + skew;
        let caller = state.verifier.verify(request, now).map_err(|error| {
            let message = format!("Incorrect IAM authentication information: {error}");
            reject(401, "APIG.0301", message)
        })?;
        *access_key = Some(caller.access_key.clone());
        match (&route.project, route.service) {
            (None, _) => Ok(self.projects(&caller, request.query)),
            (Some(project), Service::Kms) => {
                let account = self.account(&caller, project);
                let account = account
                    .ok_or_else(|| reject(403, "KMS.0321", "No permission for this project"))?;
                let call = KmsCall {
                    operation: route.operation,
                    body: request.body,
                    rights: account.rights,
                    now: now.as_millisecond(),
                    region: self.region(project).unwrap_or_default(),
                    material,
                };
                self.kms(&mut state, call, &caller.access_key, project)
            }
            (Some(project), _) => self.csms(&mut state, &caller, route, project, request, now),
        }
    }

    /// IAM: lists the caller's projects, filtered by the query parameter `name` if present.
    fn projects(&self, caller: &VerifiedCaller, query: &str) -> ApiReply {
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
        ApiReply::ok(json!({"projects": projects, "links": {"self": "/v3/projects"}}))
    }

    fn csms(
        &self,
        state: &mut CloudState,
        caller: &VerifiedCaller,
        route: &ApiRoute,
        project: &str,
        request: &ReceivedRequest<'_>,
        now: Timestamp,
    ) -> Result<ApiReply, ApiRejection> {
        let account = self.account(caller, project);
        let account =
            account.ok_or_else(|| reject(403, "CSMS.0302", "No permission for this project"))?;
        let call = CsmsCall {
            route,
            query: request.query,
            body: request.body,
            rights: account.rights,
            now: now.as_millisecond(),
            latest: self.config.latest,
            not_found: self.config.not_found,
            delete_status: self.config.delete_status,
        };
        // The call works on a copy, which shares the values, so that a rejected call changes
        // nothing.
        let mut projects = state.projects.clone();
        let answer = super::csms::execute(&call, projects.entry(project.to_owned()).or_default())?;
        if request.method != "GET" {
            self.commit(state, projects)?;
        }
        Ok(answer)
    }

    fn kms(
        &self,
        state: &mut CloudState,
        call: KmsCall<'_>,
        access_key: &str,
        project: &str,
    ) -> Result<ApiReply, ApiRejection> {
        if let Some(limit) = self.config.kms_qps {
            let calls = state.kms_calls.entry(access_key.to_owned()).or_default();
            let begin = call.now - 1000;
            calls.retain(|time| (begin + 1..=call.now).contains(time));
            if calls.len() >= limit.get() as usize {
                let message = format!(
                    "The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:1 second"
                );
                return Err(reject(429, "APIG.0308", message));
            }
            calls.push_back(call.now);
        }
        if !super::kms::writes(call.operation) {
            let keys = state.keys.entry(project.to_owned()).or_default();
            return super::kms::execute(call, keys);
        }
        // The call works on a copy, which shares the keys' material, so that a rejected call changes nothing.
        let mut keys = state.keys.clone();
        let answer = super::kms::execute(call, keys.entry(project.to_owned()).or_default())?;
        self.save(&state.projects, &keys)?;
        state.keys = keys;
        Ok(answer)
    }

    /// The caller's account, if it has the project.
    fn account(&self, caller: &VerifiedCaller, project: &str) -> Option<&Account> {
        let account = self.config.accounts.get(caller.account);
        account.filter(|account| account.projects.values().any(|id| id == project))
    }

    /// Replaces the secrets, after they were written to the state file, if there is one.
    pub(super) fn commit(
        &self,
        state: &mut CloudState,
        projects: SecretsByProject,
    ) -> Result<(), ApiRejection> {
        self.save(&projects, &state.keys)?;
        state.projects = projects;
        Ok(())
    }

    /// Writes the state file, if there is one.
    fn save(&self, projects: &SecretsByProject, keys: &KeysByProject) -> Result<(), ApiRejection> {
        let Some(path) = &self.config.state else {
            return Ok(());
        };
        state_file::save(path, projects, keys).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "cannot write the state file");
            reject(500, "CSMS.0001", "Internal error")
        })
    }

    /// Value of the `Date` header.
    pub(super) fn date(&self, fault: &Fault) -> String {
        let skew = SignedDuration::from_secs(fault.clock_skew_seconds.unwrap_or(0));
        let now = self.now(&self.lock()) + skew;
        now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}
