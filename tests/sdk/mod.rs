//! Huawei's official Python SDK, which proves both sides: the client and the emulator.

mod csms;
pub(crate) mod venv;
