//! The integration tests, in one binary so that they link once. Each module uses the program through one of
//! its public interfaces.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod architecture;
mod cache;
mod canary;
mod chart;
mod cli;
mod cloud;
mod driver;
mod emulator;
mod envelope;
mod envelope_sdk;
mod faults;
mod hostile;
mod links;
mod mount;
mod policy;
mod reference_pages;
mod rotation;
mod scale;
mod sdk;
mod serve;
mod signature;
mod socket;

mod support;
mod texts;
