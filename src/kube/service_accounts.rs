//! The secrets that ServiceAccounts list for their pods.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, GetParams};
use tokio::time::Instant;

use super::client::{Access, KubeError, request};
use crate::util::json::{self, MaybeText};
use crate::util::single_flight::{FlightError, SingleFlight};

/// Annotation with a JSON array of the secrets that pods of a ServiceAccount may mount. Source: Huawei's CCE
/// user guide, page cce_10_0370.
pub const ANNOTATION: &str = "cce.io/dew-resource";
/// ServiceAccounts that no pod used for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Limit of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the ServiceAccount must list the secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "camelCase")]
pub enum AllowListMode {
    /// The list must exist and name every secret, as for the CCE add-on.
    #[default]
    Required,
    /// A list must name every secret; without a list, every secret is allowed.
    IfPresent,
    /// Lists are ignored.
    Off,
}

/// The list in the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    /// There is no annotation.
    Absent,
    /// It cannot be parsed, for this reason.
    Invalid(String),
    /// The names of the secrets.
    Names(BTreeSet<String>),
}

impl AllowList {
    /// Parses the value of the annotation.
    pub fn parse(annotation: Option<&str>) -> Self {
        let Some(annotation) = annotation else {
            return Self::Absent;
        };
        let invalid = |why: String| {
            Self::Invalid(format!(
                "not a JSON array of names, such as [\"db\"]: {why}"
            ))
        };
        let names: Vec<MaybeText<String>> = match serde_json::from_str(annotation) {
            Ok(names) => names,
            Err(error) => return invalid(json::describe(&error, "it is not an array")),
        };
        let mut listed = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            match name.0 {
                Ok(name) => listed.insert(name),
                Err(found) => {
                    let place = index + 1;
                    return invalid(format!(
                        "item {place} is {found}; put the name in double quotes"
                    ));
                }
            };
        }
        Self::Names(listed)
    }
}

/// Namespace and name.
type AccountName = (String, String);

#[derive(Clone, Debug)]
struct CachedList {
    list: Arc<AllowList>,
    read: Instant,
}

/// The lists of ServiceAccounts, cached. Clones share the cache.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
    lists: Arc<Mutex<HashMap<AccountName, CachedList>>>,
    reads: SingleFlight<AccountName, Result<CachedList, KubeError>>,
}

impl ServiceAccounts {
    /// An empty cache.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            lists: Arc::default(),
            reads: SingleFlight::default(),
        }
    }

    /// The list of a ServiceAccount, read at most `max_age` ago, and its age.
    ///
    /// # Errors
    /// If it does not exist or cannot be read before `deadline`.
    pub async fn list(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<(Arc<AllowList>, Duration), KubeError> {
        let newest = GetParams::default();
        let known = self.get(namespace, name, max_age, newest, deadline).await?;
        Ok((known.list, known.read.elapsed()))
    }

    /// Like [`ServiceAccounts::list`], but the API server may answer from its own cache, which is cheap for it
    /// and usually less than a second old.
    ///
    /// # Errors
    /// If it does not exist or cannot be read before `deadline`.
    pub async fn recent(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<Arc<AllowList>, KubeError> {
        let cached = GetParams::any();
        let known = self.get(namespace, name, max_age, cached, deadline).await?;
        Ok(known.list)
    }

    async fn get(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
        parameters: GetParams,
        deadline: Instant,
    ) -> Result<CachedList, KubeError> {
        let account = (namespace.to_owned(), name.to_owned());
        let known = self.lock().get(&account).cloned();
        if let Some(known) = known.filter(|known| known.read.elapsed() <= max_age) {
            return Ok(known);
        }
        let fetch = self.clone().fetch(account.clone(), parameters);
        let (read, _) = self.reads.run(account, deadline, fetch).await;
        read.unwrap_or_else(|error| {
            let reason = match error {
                FlightError::TimedOut => "timed out",
                FlightError::Panicked => "internal error in dew-provider; please report this bug",
            };
            Err(KubeError::failed(access(&what(namespace, name)), reason))
        })
    }

    /// Forgets ServiceAccounts that no pod used recently. To be called periodically.
    pub fn sweep(&self) {
        self.lock()
            .retain(|_, known| known.read.elapsed() < FORGET_AFTER);
    }

    async fn fetch(
        self,
        account: AccountName,
        parameters: GetParams,
    ) -> Result<CachedList, KubeError> {
        let read = Instant::now();
        let (namespace, name) = &account;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = request(
            access(&what(namespace, name)),
            read + READ_TIMEOUT,
            api.get_metadata_with(name, &parameters),
        )
        .await?;
        let annotation = found
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(ANNOTATION));
        let list = Arc::new(AllowList::parse(annotation.map(String::as_str)));
        let cached = CachedList { list, read };
        self.lock().insert(account, cached.clone());
        Ok(cached)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountName, CachedList>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn access(what: &str) -> Access<'_> {
    Access {
        verb: "get",
        resource: "serviceaccounts",
        what,
    }
}

fn what(namespace: &str, name: &str) -> String {
    format!("ServiceAccount {namespace}/{name}")
}

impl fmt::Debug for ServiceAccounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAccounts")
    }
}

impl fmt::Display for AllowListMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::IfPresent => "ifPresent",
            Self::Off => "off",
        })
    }
}
