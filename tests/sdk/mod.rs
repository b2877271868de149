//! Tests with Huawei's official Python SDK, which check both the client and the emulator.

mod csms;
mod kms;
pub(crate) mod venv;
