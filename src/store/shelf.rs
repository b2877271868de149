//! What is held, within a bound on its bytes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Key, Version};

/// What is kept around each value, at a guess.
const ENTRY_OVERHEAD: usize = 512;

pub(super) struct Held {
    pub(super) version: Arc<Version>,
    /// When the fetch that confirmed it began.
    pub(super) checked: Instant,
    pub(super) used: Instant,
    /// How the last fetch since then failed, if one did.
    pub(super) failure: Option<Failure>,
}

#[derive(Clone, Copy)]
pub(super) enum Failure {
    /// The cloud could not answer.
    Outage(Instant),
    /// The cloud said no: denied, gone, disabled. What it gave before is not for new pods.
    Refused,
}

impl Held {
    pub(super) fn bytes(&self) -> usize {
        self.version.value.bytes().len() + ENTRY_OVERHEAD
    }
}

#[derive(Default)]
pub(super) struct Shelf {
    pub(super) held: HashMap<Key, Held>,
    pub(super) bytes: usize,
}

impl Shelf {
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
            if let Some(old) = oldest.and_then(|key| self.held.remove(&key)) {
                self.bytes -= old.bytes();
            }
        }
    }
}
