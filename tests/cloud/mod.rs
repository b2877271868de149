//! Tests of `cloud`.
#![allow(clippy::unwrap_used)] // helpers of tests too

mod signing;
mod wire;
