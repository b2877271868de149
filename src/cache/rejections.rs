//! Rejections that are remembered for a moment, so that pods that are retried do not ask for the same missing
//! secret again and again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::key::CacheKey;
use super::leader_view::SecretRef;
use crate::cloud::{ApiError, ErrorKind};

/// How long a rejection is remembered. After each further "not found" in a row, twice as long.
const FIRST: Duration = Duration::from_secs(5);
/// The longest time.
const LONGEST: Duration = Duration::from_secs(20);
/// A secret that nobody asked for in this time after its last "not found" starts again at [`FIRST`].
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// Maximum number of rejections that are remembered.
const MAX: usize = 4096;

struct Rejection {
    error: ApiError,
    at: Instant,
    remembered_for: Duration,
}

/// What the cloud rejected lately.
#[derive(Default)]
pub(super) struct Rejections(HashMap<CacheKey, Rejection>);

impl Rejections {
    /// The rejection of a key, if it is remembered.
    pub(super) fn get(&self, key: &CacheKey) -> Option<ApiError> {
        let rejection = self.0.get(key)?;
        let age = rejection.at.elapsed();
        (age < rejection.remembered_for).then(|| ApiError {
            message: format!(
                "{} (answer of {} s ago)",
                rejection.error.message,
                age.as_secs()
            ),
            ..rejection.error.clone()
        })
    }

    /// Remembers a rejection, unless it may have ended by the time of another call.
    pub(super) fn add(&mut self, key: &CacheKey, error: &ApiError) {
        let now = Instant::now();
        let known = self.0.get(key).map(|known| known.remembered_for);
        let remembered_for = match (error.kind, known) {
            (ErrorKind::NotFound, Some(known)) => LONGEST.min(known * 2),
            (ErrorKind::NotFound | ErrorKind::Denied, _) => FIRST,
            _ => return,
        };
        if self.0.len() >= MAX {
            self.0
                .retain(|_, known| now.duration_since(known.at) < known.remembered_for);
            if self.0.len() >= MAX {
                return;
            }
        }
        let rejection = Rejection {
            error: error.clone(),
            at: now,
            remembered_for,
        };
        self.0.insert(key.clone(), rejection);
    }

    /// Forgets the rejection of a key, because the cloud returned a version.
    pub(super) fn remove(&mut self, key: &CacheKey) {
        self.0.remove(key);
    }

    /// Forgets all rejections of a secret, because the leader says that it has a version.
    pub(super) fn remove_secret(&mut self, secret: SecretRef<'_>) {
        self.0.retain(|key, _| !secret.is_of(key));
    }

    /// Forgets rejections that nobody met lately. To be called periodically.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|_, known| known.at.elapsed() < FORGET_AFTER);
    }
}
