//! What lint finds.

use std::fmt;

use crate::util::text::escaped;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A Mount would fail.
    Error,
    /// Probably not intended.
    Warning,
}

/// A problem in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as named on the command line.
    pub file: String,
    /// Line, from 1; 0 if it concerns the file as a whole.
    pub line: u64,
    /// Its severity.
    pub severity: Severity,
    /// Kind and name of the object, then the field.
    pub place: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        let (place, reason) = (escaped(&self.place), escaped(&self.reason));
        write!(f, ": {severity}: {place}: {reason}")
    }
}
