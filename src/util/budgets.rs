//! Budgets that are shared out: each tenant has one of its own, which refills over time.

use std::collections::HashMap;

use tokio::time::Instant;

/// A budget for each tenant. Only those that are not full take up memory.
#[derive(Debug)]
pub struct Budgets {
    size: f64,
    per_second: f64,
    /// What is used of a tenant's budget, and when that was computed.
    used: HashMap<String, (f64, Instant)>,
    swept: Option<Instant>,
}

impl Budgets {
    /// Budgets of `size`, which refill at `per_second`.
    pub fn new(size: f64, per_second: f64) -> Self {
        Self {
            size,
            per_second,
            used: HashMap::new(),
            swept: None,
        }
    }

    /// Takes `amount` from the budget of a tenant; returns whether it was there. More than a whole budget takes
    /// all of it.
    pub fn take(&mut self, tenant: &str, amount: f64) -> bool {
        let now = Instant::now();
        self.sweep(now);
        let used = self.used_at(tenant, now);
        let amount = amount.min(self.size);
        let fits = used + amount <= self.size;
        let used = if fits { used + amount } else { used };
        match self.used.get_mut(tenant) {
            Some(known) => *known = (used, now),
            None => drop(self.used.insert(tenant.to_owned(), (used, now))),
        }
        fits
    }

    fn used_at(&self, tenant: &str, now: Instant) -> f64 {
        self.used.get(tenant).map_or(0.0, |(used, at)| {
            let refilled = now.duration_since(*at).as_secs_f64() * self.per_second;
            (used - refilled).max(0.0)
        })
    }

    /// Forgets budgets that are full again, at most once a second.
    fn sweep(&mut self, now: Instant) {
        let is_due = self
            .swept
            .is_none_or(|at| now.duration_since(at).as_secs() >= 1);
        if is_due {
            self.swept = Some(now);
            let per_second = self.per_second;
            self.used
                .retain(|_, (used, at)| *used > now.duration_since(*at).as_secs_f64() * per_second);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_tenant_has_a_budget_that_refills() {
        let mut budgets = Budgets::new(2.0, 0.5);
        assert!(budgets.take("a", 1.0) && budgets.take("a", 1.0));
        assert!(!budgets.take("a", 1.0), "it is used up");
        assert!(
            budgets.take("b", 5.0),
            "a whole budget is enough for anything"
        );
        assert!(!budgets.take("b", 0.1));
        advance(Duration::from_secs(2)).await;
        assert!(budgets.take("a", 1.0));
        assert!(!budgets.take("a", 0.5));
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_whose_budget_is_full_take_up_no_memory() {
        let mut budgets = Budgets::new(10.0, 1.0);
        for tenant in 0..10_000 {
            assert!(budgets.take(&tenant.to_string(), 1.0));
        }
        advance(Duration::from_secs(2)).await;
        assert!(budgets.take("another", 1.0));
        assert_eq!(budgets.used.len(), 1);
    }
}
