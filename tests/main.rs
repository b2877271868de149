//! The tests, in one binary: one link step. Each module drives the program through a public edge.

mod cloud;
mod driver;
mod emulator;
mod sdk;
mod socket;
