//! A resource of which no namespace can take more than its share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Units of a resource, such as bytes. Who waits for units of their own namespace holds none of the others'.
#[derive(Debug)]
pub struct Shares {
    all: Arc<Semaphore>,
    /// The most units that one namespace may hold.
    share: u32,
    /// Those of namespaces that hold units or wait for some.
    by_namespace: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Units that are free again when it is dropped.
#[derive(Debug)]
pub struct Share {
    // Dropped in this order: others of the namespace get units only after they are free.
    of_all: OwnedSemaphorePermit,
    of_namespace: OwnedSemaphorePermit,
}

impl Share {
    /// Gives back all but `units`.
    pub fn shrink(&mut self, units: usize) {
        for permit in [&mut self.of_all, &mut self.of_namespace] {
            let surplus = permit.num_permits().saturating_sub(units);
            drop(permit.split(surplus));
        }
    }
}

impl Shares {
    /// `total` units, of which a namespace may hold `share`.
    pub fn new(total: u32, share: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(total as usize)),
            share: share.min(total),
            by_namespace: Mutex::default(),
        }
    }

    /// Waits for `units`, at most the namespace's share.
    pub async fn acquire(&self, namespace: &str, units: u32) -> Share {
        let units = units.min(self.share);
        let own = self.of_namespace(namespace);
        let of_namespace = acquire(own, units).await;
        let of_all = acquire(Arc::clone(&self.all), units).await;
        Share {
            of_all,
            of_namespace,
        }
    }

    fn of_namespace(&self, namespace: &str) -> Arc<Semaphore> {
        let mut known = self
            .by_namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(namespace).and_then(Weak::upgrade) {
            return own;
        }
        known.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.share as usize));
        known.insert(namespace.to_owned(), Arc::downgrade(&own));
        own
    }
}

async fn acquire(of: Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
    match of.acquire_many_owned(units).await {
        Ok(permit) => permit,
        // Only a closed semaphore fails, and none is closed.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_takes_all_it_can_leaves_room_for_others() {
        let shares = Arc::new(Shares::new(10, 4));
        let held = [
            shares.acquire("greedy", 2).await,
            shares.acquire("greedy", 2).await,
        ];
        let waits = |namespace, units| {
            let shares = Arc::clone(&shares);
            async move {
                let wait = timeout(Duration::from_secs(1), shares.acquire(namespace, units));
                wait.await.is_err()
            }
        };
        assert!(waits("greedy", 1).await);
        assert!(!waits("other", 4).await);
        assert!(
            !waits("other", 1_000).await,
            "more than its share is its share"
        );
        drop(held);
        assert!(!waits("greedy", 4).await);
    }

    #[tokio::test(start_paused = true)]
    async fn all_namespaces_together_get_the_total() {
        let shares = Shares::new(5, 4);
        let first = shares.acquire("a", 4).await;
        let second = timeout(Duration::from_secs(1), shares.acquire("b", 4));
        assert!(second.await.is_err());
        drop(first);
        shares.acquire("b", 4).await;
        assert_eq!(shares.by_namespace.lock().unwrap().len(), 1);
    }
}
