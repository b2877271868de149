//! Tests of `sdk`.
