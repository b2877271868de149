//! Parsed `objects` lists by their text: volumes of one class repeat it word for word.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{MountError, Reason};
use super::spec::{Problem, Spec};

/// Lists kept; a cluster has at most 500 classes with the CCE add-on.
const CAPACITY: usize = 512;
/// Bytes of their texts, so that long ones do not add up.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// The lists seen lately.
#[derive(Debug, Default)]
pub(super) struct SpecCache(Mutex<HashMap<String, Arc<Spec>>>);

impl SpecCache {
    /// The checked `objects` of a class.
    pub(super) fn get(&self, class: &str, objects: Option<&str>) -> Result<Arc<Spec>, MountError> {
        let Some(text) = objects else {
            return Err(MountError::new(
                Reason::Invalid,
                format!(
                    "SecretProviderClass {class:?} has no parameter objects: give it a YAML list of \
                     secrets"
                ),
            ));
        };
        if let Some(spec) = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(text)
        {
            return Ok(Arc::clone(spec));
        }
        let spec = Spec::parse(text)
            .map(Arc::new)
            .map_err(|p| refused(class, &p))?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = known.keys().map(String::len).sum();
        if known.len() >= CAPACITY || bytes + text.len() > MAX_BYTES {
            // Rare enough that forgetting all is as good as choosing one.
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&spec));
        Ok(spec)
    }
}

fn refused(class: &str, problems: &[Problem]) -> MountError {
    let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
    MountError::new(
        Reason::Invalid,
        format!("SecretProviderClass {class:?}: {}", list.join("; ")),
    )
}
