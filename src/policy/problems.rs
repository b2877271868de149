//! Problems of a policy file.

use std::fmt;

/// Maximum number of problems that are kept: nobody reads more.
const MAX_PROBLEMS: usize = 20;
/// Maximum length of a field or a reason, in characters.
const MAX_TEXT: usize = 200;

/// A problem in a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// Line of the file, from 1; 0 if it concerns the file as a whole.
    pub line: u64,
    /// Number of the rule, from 1, if it concerns a rule.
    pub rule: Option<usize>,
    /// The field, if it concerns one.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub reason: String,
}

impl PolicyProblem {
    /// A problem of a line, or of the file as a whole for line 0.
    pub(super) fn at(line: u64, reason: impl Into<String>) -> Self {
        Self {
            line,
            rule: None,
            field: None,
            reason: shortened(&reason.into()),
        }
    }

    /// The rule and the field, as in `rule 2, secrets`; empty if it concerns neither.
    pub fn place(&self) -> String {
        let rule = self.rule.map(|rule| format!("rule {rule}"));
        let parts = [rule, self.field.clone()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}", self.line)?;
        }
        let place = self.place();
        if self.line > 0 && !place.is_empty() {
            f.write_str(", ")?;
        }
        f.write_str(&place)?;
        if self.line > 0 || !place.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Collects problems of fields.
#[derive(Debug, Default)]
pub(super) struct PolicyProblems {
    kept: Vec<PolicyProblem>,
    dropped: usize,
}

impl PolicyProblems {
    /// Adds a problem of a field.
    pub(super) fn add(
        &mut self,
        line: u64,
        rule: Option<usize>,
        field: &str,
        reason: impl Into<String>,
    ) {
        if self.kept.len() >= MAX_PROBLEMS {
            self.dropped += 1;
            return;
        }
        self.kept.push(PolicyProblem {
            rule,
            field: Some(shortened(field)),
            ..PolicyProblem::at(line, reason)
        });
    }

    /// `Ok` without problems; else all of them in the order of their lines, the last with the number of those
    /// that were not kept.
    pub(super) fn into_result(mut self) -> Result<(), Vec<PolicyProblem>> {
        self.kept.sort_by_key(|problem| problem.line);
        if self.dropped > 0 {
            let more = format!("{} more problems", self.dropped);
            self.kept.push(PolicyProblem::at(0, more));
        }
        if self.kept.is_empty() {
            Ok(())
        } else {
            Err(self.kept)
        }
    }
}

/// Without control characters, and at most [`MAX_TEXT`] characters.
fn shortened(text: &str) -> String {
    let mut kept: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}
