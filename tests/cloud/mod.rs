//! Tests of `cloud`.

mod signing;
mod wire;
