//! What rotation counts.

use std::time::Duration;

use tokio::time::Instant;

use super::nudge::Outcome;
use crate::observe::metrics::{Metrics, NudgeLabels, RotationMetrics};

/// The families of rotation.
pub(super) struct Measure(RotationMetrics);

/// Is 1 as long as it is there.
pub(super) struct Leads(RotationMetrics);

impl Drop for Leads {
    fn drop(&mut self) {
        self.0.leader.set(0);
        self.0.planned.set(0);
        self.0.behind.set(0.0);
    }
}

impl Measure {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(metrics.rotation.clone())
    }

    pub(super) fn leads(&self) -> Leads {
        self.0.leader.set(1);
        Leads(self.0.clone())
    }

    pub(super) fn planned(&self, secrets: usize) {
        self.0.planned.set(secrets as i64);
    }

    /// How late the question is that is due first.
    pub(super) fn behind(&self, due: Option<Instant>, now: Instant) {
        let late = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        self.0.behind.set(late.as_secs_f64());
    }

    pub(super) fn state(&self, oldest: Duration, failing: i64) {
        self.0.oldest.set(oldest.as_secs_f64());
        self.0.failing.set(failing);
    }

    pub(super) fn changed(&self) {
        self.0.changes.inc();
    }

    pub(super) fn nudged(&self, outcome: Outcome) {
        let labels = NudgeLabels {
            outcome: outcome.label(),
        };
        self.0.nudges.get_or_create(&labels).inc();
    }

    pub(super) fn delivered(&self, took: Duration) {
        self.0.delivery.observe(took.as_secs_f64());
    }
}
