//! The emulator, as its clients use it.

mod control;
mod secrets;
mod service;
