//! The `objects` list of a SecretProviderClass: from YAML text to checked objects.
//!
//! Pure, so that a Mount and the offline `lint` command run the same code. All problems of a list are
//! reported together, each with its line.

mod list;
mod problems;
mod rules;
mod types;
mod yaml;

pub use list::Objects;
pub use problems::Problem;
pub use types::{Content, Encoding, Extract, MAX_EXTRACTS, MAX_OBJECTS, MAX_OBJECTS_BYTES, Object};
