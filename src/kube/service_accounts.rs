//! The secrets that ServiceAccounts list for their pods.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, GetParams};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use tokio::time::{Instant, timeout_at};

use super::client::{Access, KubeError, request};
use super::trimmed::{Shape, begin, pick, trimmed};
use crate::util::json::{self, MaybeText};
use crate::util::namespace_sizes::NamespaceSizes;
use crate::util::shares::Shares;
use crate::util::single_flight::{FlightError, SingleFlight};

/// Annotation with a JSON array of the secrets that pods of a ServiceAccount may mount. Source: Huawei's CCE
/// user guide, page cce_10_0370.
pub const ANNOTATION: &str = "cce.io/dew-resource";
/// ServiceAccounts that no pod used for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Most names of a list. An account has at most 5,000 secrets. Source: Huawei's DEW user guide.
const MAX_NAMES: usize = 5_000;
/// Longest name that a secret may have, and more.
const MAX_NAME: usize = 256;
/// Most bytes of lists that are kept. If there are more, the namespace with the most loses its own.
const MAX_KEPT: usize = 4 * 1024 * 1024;
/// Estimated memory of a list and of a name in addition to its text, in bytes.
const LIST_OVERHEAD: usize = 256;
const NAME_OVERHEAD: usize = 64;
/// ServiceAccounts that are read at once, and those of one namespace.
const MAX_READS: u32 = 16;
const MAX_READS_PER_NAMESPACE: u32 = 4;
/// Limit of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Age that a list counts as having when the API server may have answered from its own cache: more than that
/// cache usually lags behind, so that such a list confirms nothing that was read just before.
const CACHE_LAG: Duration = Duration::from_secs(5);

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
        match serde_json::from_str(annotation) {
            Ok(BoundedNames::All(names)) => Self::Names(names),
            Ok(BoundedNames::TooMany) => Self::Invalid(format!(
                "more than {MAX_NAMES} names: use several ServiceAccounts"
            )),
            Ok(BoundedNames::NoName { place, found }) => invalid(format!(
                "item {place} is {found}; put the name in double quotes"
            )),
            Err(error) => invalid(json::describe(&error, "it is not an array")),
        }
    }
}

/// The array in an annotation.
enum BoundedNames {
    /// Its names.
    All(BTreeSet<String>),
    /// There are too many.
    TooMany,
    /// An item, counted from 1, that is something else.
    NoName { place: usize, found: &'static str },
}

impl<'de> Deserialize<'de> for BoundedNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = BoundedNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BoundedNames, A::Error> {
                let mut names = BTreeSet::new();
                let mut place = 0;
                let wrong = loop {
                    let Some(item) = list.next_element::<MaybeText<String>>()? else {
                        return Ok(BoundedNames::All(names));
                    };
                    place += 1;
                    match item.0 {
                        Err(found) => break BoundedNames::NoName { place, found },
                        Ok(name) if names.len() >= MAX_NAMES && !names.contains(&name) => {
                            break BoundedNames::TooMany;
                        }
                        // No secret has a longer name.
                        Ok(name) if name.len() <= MAX_NAME => drop(names.insert(name)),
                        Ok(_) => {}
                    }
                };
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(wrong)
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

/// Namespace and name.
type AccountName = (String, String);

#[derive(Clone, Debug)]
struct CachedList {
    list: Arc<AllowList>,
    /// When it was the newest.
    read: Instant,
}

#[derive(Default)]
struct CachedLists {
    by_account: HashMap<AccountName, CachedList>,
    sizes: NamespaceSizes,
}

impl CachedLists {
    /// Keeps a list, unless a newer one is known.
    fn put(&mut self, account: AccountName, cached: CachedList) {
        let known = self.by_account.get(&account);
        if known.is_some_and(|known| known.read > cached.read) {
            return;
        }
        self.remove(&account);
        self.sizes.add(&account.0, cached.size());
        self.by_account.insert(account, cached);
        while self.sizes.total() > MAX_KEPT {
            let Some(largest) = self.sizes.largest() else {
                break;
            };
            let of_largest = (self.by_account.iter()).filter(|(account, _)| account.0 == largest);
            let oldest = of_largest.min_by_key(|(_, cached)| cached.read);
            let Some(oldest) = oldest.map(|(account, _)| account.clone()) else {
                break;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, account: &AccountName) {
        if let Some(old) = self.by_account.remove(account) {
            self.sizes.subtract(&account.0, old.size());
        }
    }
}

impl CachedList {
    fn size(&self) -> usize {
        LIST_OVERHEAD
            + match &*self.list {
                AllowList::Absent => 0,
                AllowList::Invalid(why) => why.len(),
                AllowList::Names(names) => {
                    names.iter().map(|name| NAME_OVERHEAD + name.len()).sum()
                }
            }
    }
}

/// Keeps of a ServiceAccount its annotation.
pub(super) fn trim(json: &str) -> String {
    let [version, kind, metadata] = pick(json, ["apiVersion", "kind", "metadata"]);
    begin([version, kind], metadata, None, Some(ANNOTATION)).end()
}

/// The lists of ServiceAccounts, cached. Clones share the cache.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
    lists: Arc<Mutex<CachedLists>>,
    turns: Arc<Shares>,
    /// Also by whether the API server may answer from its cache: a caller that needs the newest list must not join
    /// a read that may return an older one.
    reads: SingleFlight<(AccountName, bool), Result<CachedList, KubeError>>,
}

impl ServiceAccounts {
    /// An empty cache.
    pub fn new(client: Client) -> Self {
        Self {
            client: trimmed(&client, Shape::Object, Arc::new(trim)),
            lists: Arc::default(),
            turns: Arc::new(Shares::new(MAX_READS, MAX_READS_PER_NAMESPACE)),
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
        let known = self.get(namespace, name, max_age, false, deadline).await?;
        Ok((known.list, known.read.elapsed()))
    }

    /// Like [`ServiceAccounts::list`], but the API server may answer from its own cache, which is cheap for it
    /// and usually less than a second old. Counts as five seconds older.
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
        let known = self.get(namespace, name, max_age, true, deadline).await?;
        Ok(known.list)
    }

    async fn get(
        &self,
        namespace: &str,
        name: &str,
        max_age: Duration,
        may_be_cached: bool,
        deadline: Instant,
    ) -> Result<CachedList, KubeError> {
        let account = (namespace.to_owned(), name.to_owned());
        let known = self.lock().by_account.get(&account).cloned();
        if let Some(known) = known.filter(|known| known.read.elapsed() <= max_age) {
            return Ok(known);
        }
        let fetch = self.clone().fetch(account.clone(), may_be_cached);
        let key = (account, may_be_cached);
        let (read, _) = self.reads.run(key, deadline, fetch).await;
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
        let mut lists = self.lock();
        let old = lists.by_account.iter();
        let old = old.filter(|(_, known)| known.read.elapsed() >= FORGET_AFTER);
        let old: Vec<AccountName> = old.map(|(account, _)| account.clone()).collect();
        for account in old {
            lists.remove(&account);
        }
    }

    async fn fetch(
        self,
        account: AccountName,
        may_be_cached: bool,
    ) -> Result<CachedList, KubeError> {
        let (namespace, name) = &account;
        let deadline = Instant::now() + READ_TIMEOUT;
        let Ok(_turn) = timeout_at(deadline, self.turns.acquire(namespace, 1)).await else {
            return Err(KubeError::failed(
                access(&what(namespace, name)),
                "timed out",
            ));
        };
        let now = Instant::now();
        let (parameters, read) = if may_be_cached {
            let read = now.checked_sub(CACHE_LAG).unwrap_or(now);
            (GetParams::any(), read)
        } else {
            (GetParams::default(), now)
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = request(
            access(&what(namespace, name)),
            deadline,
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
        self.lock().put(account, cached.clone());
        Ok(cached)
    }

    fn lock(&self) -> MutexGuard<'_, CachedLists> {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn lists_are_bounded() {
        let names =
            |count: usize| serde_json::json!((0..count).map(|i| i.to_string()).collect::<Vec<_>>());
        let parse = |names: serde_json::Value| AllowList::parse(Some(&names.to_string()));
        assert!(matches!(parse(names(MAX_NAMES)), AllowList::Names(n) if n.len() == MAX_NAMES));
        assert!(
            matches!(parse(names(MAX_NAMES + 1)), AllowList::Invalid(why) if why.contains("5000"))
        );
        let repeated = serde_json::json!(vec!["x"; 10_000]);
        assert!(matches!(parse(repeated), AllowList::Names(n) if n.len() == 1));
        assert!(matches!(
            parse(serde_json::json!({"a": 1})),
            AllowList::Invalid(_)
        ));
        assert!(matches!(
            parse(serde_json::json!([1])),
            AllowList::Invalid(_)
        ));
    }

    #[tokio::test]
    async fn the_namespace_with_the_longest_lists_loses_its_own() {
        let mut lists = CachedLists::default();
        let list = |count: usize| CachedList {
            list: Arc::new(AllowList::Names(
                (0..count).map(|i| i.to_string()).collect(),
            )),
            read: Instant::now(),
        };
        for index in 0..100 {
            lists.put(("greedy".into(), index.to_string()), list(MAX_NAMES));
            lists.put(("honest".into(), index.to_string()), list(20));
        }
        assert!(lists.sizes.total() <= MAX_KEPT);
        let of_honest = lists.by_account.keys().filter(|name| name.0 == "honest");
        assert_eq!(of_honest.count(), 100);
    }

    /// ServiceAccounts at an API server whose cache lags behind: it has an empty list, which it returns once it is
    /// released, and the newest list names `a`.
    fn lagging() -> (ServiceAccounts, Arc<Notify>) {
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let service = tower::service_fn(move |request: Request<Body>| {
            let held = Arc::clone(&held);
            async move {
                let query = request.uri().query().unwrap_or_default();
                let is_cached = query.contains("resourceVersion=0");
                if is_cached {
                    held.notified().await;
                }
                let list = if is_cached { "[]" } else { "[\"a\"]" };
                let account = json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "app", "annotations": {ANNOTATION: list}},
                });
                Ok::<_, Infallible>(Response::new(Body::from(account.to_string().into_bytes())))
            }
        });
        (
            ServiceAccounts::new(Client::new(service, "default")),
            release,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_of_the_newest_list_joins_none_of_the_cached_one() {
        let (accounts, release) = lagging();
        let deadline = Instant::now() + Duration::from_secs(5);
        let age = Duration::from_secs(1);
        let cached = accounts.recent("ns", "app", age, deadline);
        let newest = async {
            tokio::task::yield_now().await;
            let newest = accounts.list("ns", "app", age, deadline).await;
            release.notify_one();
            newest.unwrap().0
        };
        let (cached, newest) = tokio::join!(cached, newest);
        assert_eq!(*cached.unwrap(), AllowList::Names([].into()));
        assert_eq!(*newest, AllowList::Names(["a".to_owned()].into()));
        // The older one, which came later, does not replace it.
        let known = accounts.list("ns", "app", age, deadline).await;
        assert_eq!(*known.unwrap().0, *newest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_list_does_not_confirm_itself() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let (accounts, release) = lagging();
        let deadline = Instant::now() + Duration::from_secs(5);
        let age = Duration::from_secs(1);
        release.notify_one();
        let cached = accounts.recent("ns", "app", age, deadline).await;
        assert_eq!(*cached.unwrap(), AllowList::Names([].into()));
        let (confirmed, _) = accounts.list("ns", "app", age, deadline).await.unwrap();
        assert_eq!(*confirmed, AllowList::Names(["a".to_owned()].into()));
    }
}
