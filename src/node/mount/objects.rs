//! Step 2, objects: parses and checks the `objects` list. Caches the result by the text of the list, which
//! all volumes of a class share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{MountError, Reason};
use crate::class::objects::{Objects, Problem};
use crate::util::text::{fitting, one_line};

/// Maximum number of cached lists. The CCE add-on allows at most 500 classes in a cluster.
const MAX_LISTS: usize = 512;
/// Maximum total size of their texts, in bytes.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Maximum size of all problems of a list in one message, in bytes.
const MAX_PROBLEMS: usize = 3500;
/// Longest name of an object in Kubernetes, in characters.
const MAX_CLASS: usize = 253;

/// The recently used lists.
#[derive(Debug, Default)]
pub(super) struct ObjectsCache(Mutex<HashMap<String, Arc<Objects>>>);

impl ObjectsCache {
    /// The checked `objects` of a class.
    pub(super) fn get(
        &self,
        class: &str,
        objects: Option<&str>,
    ) -> Result<Arc<Objects>, MountError> {
        let Some(text) = objects else {
            return Err(MountError::new(
                Reason::Invalid,
                format!(
                    "SecretProviderClass {class:?} has no parameter objects: set it to a YAML list of secrets"
                ),
            ));
        };
        if let Some(known) = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(text)
        {
            return Ok(Arc::clone(known));
        }
        let objects = Objects::parse(text)
            .map(Arc::new)
            .map_err(|problems| invalid(class, &problems))?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = known.keys().map(String::len).sum();
        if known.len() >= MAX_LISTS || bytes + text.len() > MAX_BYTES {
            // This is so rare that dropping all lists is as good as choosing one.
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&objects));
        Ok(objects)
    }
}

fn invalid(class: &str, problems: &[Problem]) -> MountError {
    let known = problems.iter().filter(|problem| problem.left_out == 0);
    let (mut text, left_out) = fitting(known, "; ", problems.len(), MAX_PROBLEMS);
    let left_out = left_out + problems.iter().map(|p| p.left_out).sum::<usize>();
    if left_out > 0 {
        text.push_str(&format!("; {left_out} more problems"));
    }
    let class = one_line(class, MAX_CLASS);
    MountError::new(
        Reason::Invalid,
        format!("SecretProviderClass {class:?}: {text}"),
    )
}
