//! Mounts over a real socket: the simulated driver calls the provider, which calls the emulated
//! cloud.

mod ages;
mod authorize;
mod cases;
mod credentials;
mod files;
mod outage;
mod restart;
mod simulated_driver;
