//! Describes errors of JSON that may contain secrets.

use serde_json::error::Category;

/// What is wrong and where, without quoting the JSON. `data` is the description of a value of the wrong type.
pub fn describe(error: &serde_json::Error, data: &str) -> String {
    let what = match error.classify() {
        Category::Eof => "truncated JSON",
        Category::Data => data,
        Category::Io | Category::Syntax => "not JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}
