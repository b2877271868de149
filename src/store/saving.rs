//! When the store is saved, and what of it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::entry::Saved;
use super::persist::{Loaded, StoreFile};
use super::shelf::{Failure, Held, Shelf};
use super::{Inner, Key, Store};
use crate::cloud::{Caller, Identity};

/// Least time from one writing to the next.
const PAUSE: Duration = Duration::from_secs(5);
/// How old the times of confirmation in the file may become.
const CONFIRMED_EVERY: Duration = Duration::from_secs(60);

/// The file, and what it lacks.
pub(super) struct Saving {
    file: StoreFile,
    /// There is something to write.
    changed: Notify,
    /// What is in the file was confirmed since.
    confirmed: AtomicBool,
    /// Something that was refused since may be in the file.
    refused: AtomicBool,
    /// The last writing failed.
    failing: AtomicBool,
}

impl Saving {
    /// With what the file holds, on a shelf of its own.
    pub(super) fn new(file: StoreFile, limit: Duration) -> (Self, Shelf) {
        let Loaded { saved, outdated } = file.load(limit);
        let mut shelf = Shelf::default();
        for Saved {
            key,
            version,
            checked,
        } in saved
        {
            let held = Held {
                version,
                checked,
                used: Instant::now(),
                failure: None,
                lasting: Some(key.identity.clone()),
            };
            shelf.insert(key, held);
        }
        let saving = Self {
            file,
            changed: Notify::new(),
            confirmed: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        };
        if outdated {
            saving.changed.notify_one();
        }
        (saving, shelf)
    }

    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    pub(super) fn confirmed(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }
}

impl Store {
    /// Saves what changes, soon after, for as long as it is polled; without a file it has nothing
    /// to do.
    pub async fn save_changes(self) {
        let Some(saving) = &self.0.saving else {
            return;
        };
        loop {
            tokio::select! {
                () = saving.changed.notified() => {}
                () = sleep(CONFIRMED_EVERY) => if !saving.confirmed.load(Ordering::Relaxed) {
                    continue;
                }
            }
            self.save(false).await;
            sleep(PAUSE).await;
        }
    }

    /// Saves for the last time, and leaves the file to the next process.
    pub async fn close(&self) {
        self.save(true).await;
    }

    async fn save(&self, close: bool) {
        let Some(saving) = &self.0.saving else {
            return;
        };
        let inner = Arc::clone(&self.0);
        let written = spawn_blocking(move || inner.write(close)).await;
        let path = saving.file.path().display();
        match written {
            Ok(Ok(())) if saving.failing.swap(false, Ordering::Relaxed) => {
                info!(%path, "the store is saved again");
            }
            Ok(Err(error)) if !saving.failing.swap(true, Ordering::Relaxed) => {
                warn!(%path, %error, "the store cannot be saved; it is tried again every minute");
            }
            // The task itself fails only where the process ends.
            Ok(_) | Err(_) => {}
        }
    }
}

impl Inner {
    /// Whose `key` is after a restart, where that matters.
    pub(super) async fn lasting(&self, caller: &Caller, key: &Key) -> Option<Identity> {
        self.saving.as_ref()?;
        self.cloud.lasting(caller, &key.identity).await
    }

    /// Gives `key` what was saved before the restart for who asks now.
    pub(super) async fn take_saved(&self, caller: &Caller, key: &Key) {
        if self.saving.is_none() || self.shelf().held.contains_key(key) {
            return;
        }
        let Some(lasting) = self.lasting(caller, key).await else {
            return;
        };
        let mut shelf = self.shelf();
        if !shelf.held.contains_key(key)
            && let Some(held) = shelf.remove(&key.of(lasting))
        {
            shelf.insert(key.clone(), held);
        }
    }

    /// Notes that the cloud said no: neither what is held nor what is saved is for new pods.
    pub(super) fn refuse(&self, key: &Key, lasting: Option<Identity>) {
        let mut shelf = self.shelf();
        let mut was_saved = false;
        if let Some(held) = shelf.held.get_mut(key) {
            held.failure = Some(Failure::Refused);
            was_saved |= held.lasting.take().is_some();
        }
        if let Some(lasting) = lasting {
            // Other states of a file with the same keys stand beside it.
            let saved = key.of(lasting);
            was_saved |= shelf.remove(&saved).is_some();
            for (other, held) in &mut shelf.held {
                if held.lasting.as_ref() == Some(&saved.identity) && other.is_like(key) {
                    held.lasting = None;
                    was_saved = true;
                }
            }
        }
        self.size.set(shelf.bytes as i64);
        drop(shelf);
        if let (Some(saving), true) = (&self.saving, was_saved) {
            saving.refused.store(true, Ordering::Relaxed);
            saving.changed();
        }
    }

    fn write(&self, close: bool) -> io::Result<()> {
        let Some(saving) = &self.saving else {
            return Ok(());
        };
        saving.confirmed.store(false, Ordering::Relaxed);
        let refused = saving.refused.swap(false, Ordering::Relaxed);
        let written = saving.file.write(|| self.to_save());
        if written.is_err() {
            // An old file is better than none, but not if the cloud said no since.
            if refused && saving.file.remove().is_err() {
                saving.refused.store(true, Ordering::Relaxed);
            }
            saving.confirmed();
        }
        if close {
            saving.file.close();
        }
        written
    }

    /// What may be served after a restart. Of what stands there twice, the younger.
    fn to_save(&self) -> Vec<Saved> {
        let now = Instant::now();
        let mut found: HashMap<Key, Saved> = HashMap::new();
        for (key, held) in &self.shelf().held {
            let Some(lasting) = &held.lasting else {
                continue;
            };
            let key = key.of(lasting.clone());
            let checked = held.checked;
            if held.failure == Some(Failure::Refused)
                || now.duration_since(checked) >= self.stale_limit
                || found.get(&key).is_some_and(|other| other.checked > checked)
            {
                continue;
            }
            let version = Arc::clone(&held.version);
            found.insert(
                key.clone(),
                Saved {
                    key,
                    version,
                    checked,
                },
            );
        }
        found.into_values().collect()
    }
}
