//! What the pods of each namespace may mount, from the lists of its ServiceAccounts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tracing::warn;

use super::client::KubeError;
use super::service_accounts::{ANNOTATION, AllowList, AllowListMode, trim};
use super::trimmed::{Shape, trimmed};
use crate::util::budgets::Budgets;

/// Page size of lists: an annotation may have 256 KiB, and a page is in memory as a whole.
const PAGE_SIZE: u32 = 32;
/// Names that are kept of the ServiceAccounts of one namespace. A project has 200 secrets by default.
const MAX_NAMES: usize = 10_000;

/// What one ServiceAccount allows its pods.
#[derive(PartialEq)]
enum Allowed {
    /// Every secret: it has no list, and none is required.
    All,
    /// Hashes of the names in its list.
    Names(Box<[u64]>),
}

impl Allowed {
    /// What it counts towards [`MAX_NAMES`].
    fn len(&self) -> usize {
        match self {
            Self::All => 1,
            Self::Names(names) => names.len() + 1,
        }
    }
}

/// The ServiceAccounts of a namespace.
#[derive(Default)]
struct Accounts {
    /// By the hash of the account's name. Accounts that allow nothing are left out.
    by_name: HashMap<u64, Allowed>,
    /// How many accounts list each name.
    listed: HashMap<u64, u32>,
    /// How many accounts allow every secret.
    open: u32,
    /// The sum of their [`Allowed::len`].
    len: usize,
}

impl Accounts {
    fn remove(&mut self, account: u64) {
        let Some(old) = self.by_name.remove(&account) else {
            return;
        };
        self.len -= old.len();
        match &old {
            Allowed::All => self.open -= 1,
            Allowed::Names(names) => {
                for name in names {
                    if let Some(count) = self.listed.get_mut(name) {
                        *count -= 1;
                        if *count == 0 {
                            self.listed.remove(name);
                        }
                    }
                }
            }
        }
    }

    /// Adds an account that is not there. Returns whether there was room for it.
    fn add(&mut self, account: u64, allowed: Allowed) -> bool {
        if self.len + allowed.len() > MAX_NAMES {
            return false;
        }
        self.len += allowed.len();
        match &allowed {
            Allowed::All => self.open += 1,
            Allowed::Names(names) => {
                for name in names {
                    *self.listed.entry(*name).or_default() += 1;
                }
            }
        }
        self.by_name.insert(account, allowed);
        true
    }
}

#[derive(Default)]
struct Namespaces(HashMap<String, Accounts>);

/// What came of an account's list.
#[derive(PartialEq)]
enum Put {
    Unchanged,
    Changed,
    /// It exceeds what is kept of a namespace; the account allows nothing.
    Full,
}

impl Namespaces {
    /// Replaces what an account allows.
    fn put(&mut self, namespace: &str, account: u64, allowed: Option<Allowed>) -> Put {
        let known = self.0.get(namespace);
        if known.and_then(|accounts| accounts.by_name.get(&account)) == allowed.as_ref() {
            return Put::Unchanged;
        }
        let accounts = self.0.entry(namespace.to_owned()).or_default();
        accounts.remove(account);
        let fits = allowed.is_none_or(|allowed| accounts.add(account, allowed));
        if accounts.by_name.is_empty() {
            self.0.remove(namespace);
        }
        if fits { Put::Changed } else { Put::Full }
    }
}

/// The secrets that the pods of each namespace may mount, kept up to date by a watch of all ServiceAccounts.
/// Clones share it.
///
/// Who may be told about a secret, and for whom it is polled, depends on the namespace, not on the pod: whoever
/// reads the Events of a namespace may use its ServiceAccounts too.
#[derive(Clone)]
pub struct AllowLists {
    mode: AllowListMode,
    namespaces: Arc<Mutex<Namespaces>>,
    hasher: RandomState,
    /// Of each namespace whose lists are too long, one an hour.
    warnings: Arc<Mutex<Budgets>>,
    changes: watch::Receiver<u64>,
    ready: watch::Receiver<bool>,
}

impl AllowLists {
    /// Starts the watch, which runs while the returned future is polled. With [`AllowListMode::Off`] there is
    /// nothing to watch.
    pub fn watch(
        client: Client,
        mode: AllowListMode,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let namespaces = Arc::new(Mutex::new(Namespaces::default()));
        let (changed, changes) = watch::channel(0);
        let (is_ready, ready) = watch::channel(mode == AllowListMode::Off);
        let lists = Self {
            mode,
            namespaces: Arc::clone(&namespaces),
            hasher: RandomState::new(),
            warnings: Arc::new(Mutex::new(Budgets::new(1.0, 1.0 / 3600.0))),
            changes,
            ready,
        };
        let watched = lists.clone();
        let task = async move {
            if mode == AllowListMode::Off {
                std::future::pending::<()>().await;
            }
            let client = trimmed(&client, Shape::Objects, Arc::new(trim));
            let api: Api<PartialObjectMeta<ServiceAccount>> = Api::all(client);
            let config = watcher::Config::default().page_size(PAGE_SIZE);
            let mut fresh = Namespaces::default();
            watcher(api, config)
                .default_backoff()
                .inspect_err(|error| {
                    let error = KubeError::of_watch("serviceaccounts", "ServiceAccounts", error);
                    warn!(%error, "watch of ServiceAccounts failed; retrying");
                })
                .for_each(|event| {
                    let mut known = namespaces.lock().unwrap_or_else(PoisonError::into_inner);
                    let has_changed = match event {
                        Err(_) => false,
                        Ok(watcher::Event::Init) => {
                            fresh = Namespaces::default();
                            false
                        }
                        Ok(watcher::Event::InitApply(account)) => {
                            watched.put(&mut fresh, &account);
                            false
                        }
                        Ok(watcher::Event::InitDone) => {
                            *known = std::mem::take(&mut fresh);
                            is_ready.send_replace(true);
                            true
                        }
                        Ok(watcher::Event::Apply(account)) => watched.put(&mut known, &account),
                        Ok(watcher::Event::Delete(account)) => {
                            let namespace = account.namespace().unwrap_or_default();
                            let account = watched.hash(&account.name_any());
                            known.put(&namespace, account, None) == Put::Changed
                        }
                    };
                    drop(known);
                    if has_changed {
                        changed.send_modify(|count| *count += 1);
                    }
                    std::future::ready(())
                })
                .await;
        };
        (lists, task)
    }

    /// Waits for the first list.
    pub async fn ready(&self) {
        // The only error is the end of the watch, which ends the leader too.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    /// Changes when what an account allows has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The secrets of `names` that some pod of the namespace may mount.
    pub fn allowed<'a>(
        &self,
        namespace: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> HashSet<&'a str> {
        if self.mode == AllowListMode::Off {
            return names.collect();
        }
        let namespaces = self.lock();
        let Some(accounts) = namespaces.0.get(namespace) else {
            return HashSet::new();
        };
        let is_listed = |name: &&str| accounts.listed.contains_key(&self.hash(name));
        names
            .filter(|name| accounts.open > 0 || is_listed(name))
            .collect()
    }

    /// Stores an account. Returns whether that changed something.
    fn put(
        &self,
        namespaces: &mut Namespaces,
        account: &PartialObjectMeta<ServiceAccount>,
    ) -> bool {
        let annotation = account.annotations().get(ANNOTATION).map(String::as_str);
        let allowed = match AllowList::parse(annotation) {
            AllowList::Absent if self.mode == AllowListMode::IfPresent => Some(Allowed::All),
            AllowList::Absent | AllowList::Invalid(_) => None,
            AllowList::Names(names) => {
                let hashes = names.iter().map(|name| self.hash(name));
                Some(Allowed::Names(hashes.collect()))
            }
        };
        let namespace = account.namespace().unwrap_or_default();
        let put = namespaces.put(&namespace, self.hash(&account.name_any()), allowed);
        if put == Put::Full && self.may_warn(&namespace) {
            warn!(
                namespace,
                account = account.name_any(),
                "the ServiceAccounts of a namespace list more than {MAX_NAMES} secrets; the nodes poll those of \
                 this account"
            );
        }
        put != Put::Unchanged
    }

    fn may_warn(&self, namespace: &str) -> bool {
        let warnings = self.warnings.lock();
        let mut warnings = warnings.unwrap_or_else(PoisonError::into_inner);
        warnings.take(namespace, 1.0)
    }

    fn hash(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    fn lock(&self) -> MutexGuard<'_, Namespaces> {
        self.namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AllowLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AllowLists")
    }
}
