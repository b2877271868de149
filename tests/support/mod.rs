//! What the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests too

pub(crate) mod api_server;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod owner;
pub(crate) mod program;
pub(crate) mod still;
pub(crate) mod world;
