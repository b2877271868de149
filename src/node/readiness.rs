//! Readiness: what has to happen before the provider can serve mounts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What readiness waits for. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// Withholds readiness until it is dropped.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Withholds readiness until the latch is dropped; `name` is shown on `/readyz`.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name);
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// The names of the latches that still withhold readiness.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.name);
    }
}
