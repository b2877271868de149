//! What namespaces use of a common limit.

use std::collections::HashMap;

/// Sizes by namespace.
#[derive(Debug, Default)]
pub struct NamespaceSizes {
    by_namespace: HashMap<String, usize>,
    total: usize,
}

impl NamespaceSizes {
    /// Adds to the size of a namespace.
    pub fn add(&mut self, namespace: &str, size: usize) {
        self.total += size;
        match self.by_namespace.get_mut(namespace) {
            Some(known) => *known += size,
            None => drop(self.by_namespace.insert(namespace.to_owned(), size)),
        }
    }

    /// Subtracts what was added.
    pub fn subtract(&mut self, namespace: &str, size: usize) {
        if let Some(known) = self.by_namespace.get_mut(namespace) {
            self.total = self.total.saturating_sub(size);
            *known = known.saturating_sub(size);
            if *known == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }

    /// The size of a namespace.
    pub fn of(&self, namespace: &str) -> usize {
        self.by_namespace.get(namespace).copied().unwrap_or(0)
    }

    /// The size of all namespaces.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The namespace that uses the most: the one that has to give way.
    pub fn largest(&self) -> Option<&str> {
        let largest = self.by_namespace.iter().max_by_key(|(_, size)| **size);
        largest.map(|(namespace, _)| namespace.as_str())
    }
}
