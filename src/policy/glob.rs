//! Patterns with `*` and `?`.

use std::fmt;

use wildmatch::WildMatch;

/// What a glob matches, which decides the characters that it may contain: others would match nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlobKind {
    /// Names of namespaces.
    Namespace,
    /// Names of secrets in CSMS.
    Secret,
    /// Region IDs.
    Region,
    /// Project IDs.
    Project,
}

impl GlobKind {
    /// Maximum length of what it matches, and so of the glob, in bytes.
    fn max_len(self) -> usize {
        match self {
            Self::Namespace | Self::Region => 63,
            Self::Secret | Self::Project => 64,
        }
    }

    fn allows(self, byte: u8) -> bool {
        match self {
            Self::Namespace | Self::Region => {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
            }
            Self::Secret => byte.is_ascii_alphanumeric() || b"._-".contains(&byte),
            Self::Project => byte.is_ascii_alphanumeric() || b"-_".contains(&byte),
        }
    }

    fn characters(self) -> &'static str {
        match self {
            Self::Namespace | Self::Region => "lower-case letters, digits and -",
            Self::Secret => "letters, digits, ., _ and -",
            Self::Project => "letters, digits, - and _",
        }
    }
}

/// A pattern that matches a whole name: `*` stands for any characters, also none, and `?` for one.
///
/// Matching takes at most as many steps as the product of both lengths, which are at most 64 bytes.
#[derive(Clone)]
pub struct Glob(WildMatch);

impl Glob {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    /// Why it can match no name of this kind.
    pub fn new(kind: GlobKind, pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("an empty glob matches nothing: remove it".to_owned());
        }
        // Before the text is quoted, because the file is as long as its author wants.
        if pattern.len() > kind.max_len() {
            let (len, max) = (pattern.len(), kind.max_len());
            return Err(format!("too long: {len} bytes (limit {max})"));
        }
        let wrong = |c: &char| {
            !matches!(c, '*' | '?') && !u8::try_from(*c).is_ok_and(|byte| kind.allows(byte))
        };
        if let Some(wrong) = pattern.chars().find(wrong) {
            return Err(format!(
                "{pattern:?} contains {wrong:?}: use {}, * for any characters and ? for one",
                kind.characters()
            ));
        }
        Ok(Self(WildMatch::new(pattern)))
    }

    /// Whether it matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
