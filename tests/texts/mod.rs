//! Texts for people: no library speaks in them, they name field and line, and they are bounded.

mod bounds;
mod cli;
mod inputs;

/// What libraries say to programmers. None of it may reach a user.
const LIBRARY: [&str; 49] = [
    "DuplicateKeyPolicy",
    "in Options",
    "missing field",
    "unknown field `",
    "invalid type:",
    "invalid value:",
    "invalid length",
    "expected struct",
    "expected a map",
    "expected string scalar",
    "sequence start",
    "mapping start",
    "mapping end",
    "while parsing",
    "while scanning",
    "simple key",
    "block collection",
    "mapping values",
    "did not find expected",
    "duplicate mapping key",
    "budget breached",
    "recursion limit",
    "unknown anchor",
    "deserializ",
    "Deserializ",
    "serde",
    "EOF while",
    "trailing characters",
    "key must be a string",
    "nud token",
    "led token",
    "Did not parse the complete",
    " -- found",
    "Identifier(",
    "Parse error",
    "Runtime error",
    "os error",
    "client error (",
    "tcp connect error",
    "tunnel error",
    "HyperError",
    "ServiceError",
    "relative URL without a base",
    "non-zero type",
    "invalid digit",
    "socket address syntax",
    "ParseError",
    "Error {",
    "panicked",
];

/// Asserts that a text speaks to a reader.
#[track_caller]
fn assert_clear(text: &str) {
    for phrase in LIBRARY {
        assert!(!text.contains(phrase), "{phrase:?} in {text:?}");
    }
    // Positions are named once.
    assert!(text.matches("line ").count() <= 1, "{text:?}");
    assert!(text.matches("column ").count() <= 1, "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!text.is_empty() && text.len() <= 4096, "{text:?}");
}
