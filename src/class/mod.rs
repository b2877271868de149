//! What a SecretProviderClass says: its parameters, the `objects` list, and whose credentials read its
//! secrets.
//!
//! Used by a Mount, by the controller's plan and by `lint`. Makes no network calls.

pub mod file_names;
pub mod jmespath;
mod jmespath_cost;
mod jmespath_eval;
pub mod objects;
pub mod parameters;
pub mod resolver;
pub mod suggestion;
