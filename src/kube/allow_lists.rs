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

/// Page size of lists: an annotation may have 256 KiB, and a page is in memory as a whole.
const PAGE_SIZE: u32 = 32;
/// Names that are kept of the ServiceAccounts of one namespace. A project has 200 secrets by default.
const MAX_NAMES: usize = 10_000;

/// What one ServiceAccount allows its pods.
enum Allowed {
    /// Every secret: it has no list, and none is required.
    All,
    /// Hashes of the names in its list.
    Names(Box<[u64]>),
}

#[derive(Default)]
struct Namespaces {
    /// By namespace, and by the hash of the account's name. Accounts that allow nothing are left out.
    accounts: HashMap<String, HashMap<u64, Allowed>>,
}

impl Namespaces {
    fn remove(&mut self, namespace: &str, account: u64) {
        if let Some(accounts) = self.accounts.get_mut(namespace) {
            accounts.remove(&account);
            if accounts.is_empty() {
                self.accounts.remove(namespace);
            }
        }
    }

    /// Replaces what an account allows. Returns whether that exceeds what is kept of a namespace; then the account
    /// allows nothing.
    fn put(&mut self, namespace: &str, account: u64, allowed: Option<Allowed>) -> bool {
        self.remove(namespace, account);
        let Some(allowed) = allowed else {
            return false;
        };
        let len = |allowed: &Allowed| match allowed {
            Allowed::All => 1,
            Allowed::Names(names) => names.len() + 1,
        };
        let accounts = self.accounts.entry(namespace.to_owned()).or_default();
        let kept: usize = accounts.values().map(len).sum();
        if kept + len(&allowed) > MAX_NAMES {
            return true;
        }
        accounts.insert(account, allowed);
        false
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
                    match event {
                        Err(_) => {}
                        Ok(watcher::Event::Init) => fresh = Namespaces::default(),
                        Ok(watcher::Event::InitApply(account)) => {
                            watched.put(&mut fresh, &account);
                        }
                        Ok(watcher::Event::InitDone) => {
                            *known = std::mem::take(&mut fresh);
                            is_ready.send_replace(true);
                        }
                        Ok(watcher::Event::Apply(account)) => watched.put(&mut known, &account),
                        Ok(watcher::Event::Delete(account)) => {
                            let namespace = account.namespace().unwrap_or_default();
                            known.remove(&namespace, watched.hash(&account.name_any()));
                        }
                    }
                    drop(known);
                    changed.send_modify(|count| *count += 1);
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

    /// Changes with every event of the watch.
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
        let Some(accounts) = namespaces.accounts.get(namespace) else {
            return HashSet::new();
        };
        if accounts
            .values()
            .any(|allowed| matches!(allowed, Allowed::All))
        {
            return names.collect();
        }
        let listed: HashSet<u64> = accounts
            .values()
            .flat_map(|allowed| match allowed {
                Allowed::All => [].iter(),
                Allowed::Names(names) => names.iter(),
            })
            .copied()
            .collect();
        names
            .filter(|name| listed.contains(&self.hash(name)))
            .collect()
    }

    fn put(&self, namespaces: &mut Namespaces, account: &PartialObjectMeta<ServiceAccount>) {
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
        if namespaces.put(&namespace, self.hash(&account.name_any()), allowed) {
            warn!(
                namespace,
                account = account.name_any(),
                "the ServiceAccounts of a namespace list more than {MAX_NAMES} secrets; the nodes poll those of \
                 this account"
            );
        }
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
