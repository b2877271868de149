//! The Unix socket that the driver connects to.
