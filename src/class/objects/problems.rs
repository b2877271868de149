//! Problems of an `objects` list, bounded in number and size: the list is a tenant's.

use std::fmt;

/// Maximum number of problems that are kept. Nobody reads more, and each is as long as its texts.
pub(super) const MAX_PROBLEMS: usize = 20;
/// Maximum length of a name in a problem, in characters.
const MAX_NAME: usize = 64;
/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 400;

/// A problem in `objects`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Line of `objects`, from 1; 0 if it concerns the list as a whole.
    pub line: u64,
    /// The object's name, or its place in the list.
    pub object: Option<String>,
    /// The field.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub reason: String,
    /// How many further problems this one stands for.
    pub left_out: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "objects")?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    dropped: usize,
}

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of problems so far, also of those that were not kept.
    pub(super) fn count(&self) -> usize {
        self.kept.len() + self.dropped
    }

    /// Adds a problem of a field of an object. `reason` is made only if the problem is kept.
    pub(super) fn add(
        &mut self,
        line: u64,
        object: &str,
        field: &str,
        reason: impl FnOnce() -> String,
    ) {
        if self.kept.len() >= MAX_PROBLEMS {
            self.dropped += 1;
            return;
        }
        self.kept.push(Problem {
            line,
            object: Some(object.to_owned()),
            field: Some(shortened(field, MAX_NAME)),
            reason: shortened(&reason(), MAX_REASON),
            left_out: 0,
        });
    }

    /// Counts problems that were not kept.
    pub(super) fn drop_more(&mut self, count: usize) {
        self.dropped += count;
    }

    /// The problems in the order of their lines. The last one says how many were not kept.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.kept.sort_by_key(|problem| problem.line);
        if self.dropped > 0 {
            self.kept.push(Problem {
                reason: format!("{} more problems", self.dropped),
                left_out: self.dropped,
                ..Problem::default()
            });
        }
        self.kept
    }
}

/// How messages name an object: by its name, else by its place in the list.
pub(super) fn label(name: Option<&str>, index: usize) -> String {
    match name {
        Some(name) => format!("object {:?}", shortened(name, MAX_NAME)),
        None => format!("object number {}", index + 1),
    }
}

fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
