//! The tests, in one binary: one link step. Each module drives the program through a public edge.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod canary;
mod chart;
mod cli;
mod cloud;
mod driver;
mod emulator;
mod faults;
mod hostile;
mod mount;
mod readme;
mod rotation;
mod scale;
mod sdk;
mod serve;
mod socket;
mod store;
mod support;
