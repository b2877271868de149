//! Which secrets ServiceAccounts allow, read once for all pods of an account.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::Api;
use tokio::time::Instant;

use super::{KubeError, ask};
use crate::flight::{Flights, Lost};

/// Annotation that lists, as a JSON array in a string, the secrets that pods of a ServiceAccount
/// may mount. Source: Huawei's CCE user guide, page cce_10_0370.
pub const ANNOTATION: &str = "cce.io/dew-resource";
/// Accounts that no pod asked for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// One read, whoever started it.
const READ_BUDGET: Duration = Duration::from_secs(10);

/// What the annotation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    /// There is no annotation.
    Absent,
    /// It is there, but cannot be read; why.
    Bad(String),
    /// These secrets.
    Names(BTreeSet<String>),
}

impl AllowList {
    /// Reads the annotation's text.
    pub fn parse(annotation: Option<&str>) -> Self {
        match annotation.map(serde_json::from_str::<BTreeSet<String>>) {
            None => Self::Absent,
            Some(Ok(names)) => Self::Names(names),
            Some(Err(error)) => Self::Bad(format!(
                "is not a JSON array of names in a string, such as \"[\\\"db\\\"]\" (column {})",
                error.column()
            )),
        }
    }
}

/// A namespace and the name of a ServiceAccount.
type Account = (String, String);

#[derive(Clone, Debug)]
struct Read {
    list: Arc<AllowList>,
    at: Instant,
}

/// The accounts read so far. Clones share them.
#[derive(Clone)]
pub struct Accounts {
    client: Client,
    read: Arc<Mutex<HashMap<Account, Read>>>,
    flights: Flights<Account, Result<Read, KubeError>>,
}

impl Accounts {
    /// None read yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            read: Arc::default(),
            flights: Flights::default(),
        }
    }

    /// The list of an account, read at most `max_age` ago, and its age.
    pub async fn list(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<(Arc<AllowList>, Duration), KubeError> {
        let account = (namespace.to_owned(), name.to_owned());
        let known = self.lock().get(&account).cloned();
        if let Some(known) = known.filter(|k| k.at.elapsed() <= max_age) {
            return Ok((known.list, known.at.elapsed()));
        }
        let (read, _) = self
            .flights
            .run(account.clone(), deadline, self.clone().fetch(account))
            .await;
        let read = read.unwrap_or_else(|lost| {
            let reason = match lost {
                Lost::Late => "no answer in time",
                Lost::Panicked => "dew-provider failed inside: a bug, please report it",
            };
            Err(KubeError::Failed {
                what: what(namespace, name),
                reason: reason.into(),
            })
        })?;
        Ok((read.list, Duration::ZERO))
    }

    /// Forgets accounts whose pods are gone. To be called now and then.
    pub fn sweep(&self) {
        self.lock()
            .retain(|_, read| read.at.elapsed() < FORGET_AFTER);
    }

    async fn fetch(self, account: Account) -> Result<Read, KubeError> {
        let at = Instant::now();
        let (namespace, name) = &account;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = ask(
            &what(namespace, name),
            at + READ_BUDGET,
            api.get_metadata(name),
        )
        .await?;
        let annotation = found
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(ANNOTATION));
        let list = Arc::new(AllowList::parse(annotation.map(String::as_str)));
        let read = Read { list, at };
        self.lock().insert(account, read.clone());
        Ok(read)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Account, Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn what(namespace: &str, name: &str) -> String {
    format!("ServiceAccount {namespace}/{name}")
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}
