//! The client for Huawei Cloud: its signatures, and its bytes on real sockets.
#![allow(clippy::unwrap_used)] // also in helpers

mod signing;
mod wire;
