//! Tests of `sdk`.

pub(crate) mod venv;
