//! Where versions stand while they are held.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Key, Version};
use crate::cloud::Identity;

/// What is kept around each value, as an allowance.
const ENTRY_OVERHEAD: usize = 512;

pub(super) struct Held {
    pub(super) version: Arc<Version>,
    /// When the fetch that confirmed it began.
    pub(super) checked: Instant,
    pub(super) used: Instant,
    /// How the last fetch since then failed, if one did.
    pub(super) failure: Option<Failure>,
    /// Whose it is after a restart; `None` for what is not to be saved.
    pub(super) lasting: Option<Identity>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Failure {
    /// The cloud could not answer.
    Outage(Instant),
    /// The cloud said no: denied, gone, disabled. What it gave before is not for new pods.
    Refused,
}

impl Held {
    fn bytes(&self) -> usize {
        self.version.value.bytes().len() + ENTRY_OVERHEAD
    }
}

#[derive(Default)]
pub(super) struct Shelf {
    /// What was saved before a restart stands under a lasting identity, until it is asked for.
    pub(super) held: HashMap<Key, Held>,
    pub(super) bytes: usize,
}

impl Shelf {
    pub(super) fn insert(&mut self, key: Key, held: Held) -> Option<Held> {
        self.bytes += held.bytes();
        let old = self.held.insert(key, held);
        self.bytes -= old.as_ref().map_or(0, Held::bytes);
        old
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Held> {
        let old = self.held.remove(key);
        self.bytes -= old.as_ref().map_or(0, Held::bytes);
        old
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Held) -> bool) {
        self.held.retain(|_, held| keep(held));
        self.bytes = self.held.values().map(Held::bytes).sum();
    }

    /// Drops what was not used for longest. Reached only by misuse, so its cost does not matter.
    pub(super) fn shrink(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes && self.held.len() > 1 {
            let oldest = self
                .held
                .iter()
                .min_by_key(|(_, h)| h.used)
                .map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                self.remove(&key);
            }
        }
    }
}
