//! JSON of a service: its errors, which may contain secrets, and its nulls.

use serde::{Deserialize, Deserializer};
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

/// Reads `null` as the type's default, for fields that a service sends as `null` or leaves out.
pub fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
