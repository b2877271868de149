//! Tests of `cloud`.
