//! The `objects` list of a SecretProviderClass: from YAML text to checked objects.
//!
//! Pure, so that a Mount and the offline `lint` command run the same code. All problems of a list are
//! reported together, each with its line.

mod list;
mod rules;
mod types;
mod yaml;

pub use list::Objects;
pub use types::{
    Content, Encoding, Extract, MAX_EXTRACTS, MAX_OBJECTS, MAX_OBJECTS_BYTES, Object, Problem,
};
