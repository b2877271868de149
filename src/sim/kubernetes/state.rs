//! The state that requests and watches share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::objects::ObjectStore;

/// Key of [`ServerState::failing`] that stands for all resources.
pub(super) const ALL_RESOURCES: &str = "*";

pub(super) struct ServerShared {
    state: Mutex<ServerState>,
    /// Newest resource version; wakes up watches.
    pub(super) newest: watch::Sender<u64>,
    /// Changes when all watches must end.
    pub(super) epoch: watch::Sender<u64>,
}

impl ServerShared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            newest: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct ServerState {
    pub(super) objects: ObjectStore,
    /// Status to fail requests with, by resource. [`ALL_RESOURCES`] stands for all.
    pub(super) failing: BTreeMap<String, u16>,
    /// Resources whose changes are hidden from watches.
    pub(super) hidden: Vec<String>,
    /// Number of requests by verb and resource.
    pub(super) requests: BTreeMap<(&'static str, String), usize>,
}
