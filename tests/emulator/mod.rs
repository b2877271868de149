//! The emulator, as its clients use it.

mod control;
mod kms;
mod secrets;
mod service;
