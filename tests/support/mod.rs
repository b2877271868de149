//! Helpers that the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test helpers

pub(crate) mod api_http;
pub(crate) mod api_server;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod owner;
pub(crate) mod paused_clock;
pub(crate) mod program;
pub(crate) mod test_node;
