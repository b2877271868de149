//! Mounts over a real socket: the driver asks the provider, the provider the cloud.

mod ages;
mod authorize;
mod cases;
mod credentials;
mod files;
mod outage;
mod restart;
mod through_stand_in;
