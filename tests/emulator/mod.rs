//! The emulator, as a client meets it.

mod around;
mod secrets;
mod service;
