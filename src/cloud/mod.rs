//! The client of Huawei Cloud: CSMS, and what it takes to call it (IAM, the metadata service).
//!
//! Knows neither gRPC nor Kubernetes. A call goes through one loop in `http`:
//! limit → sign → send → classify → wait.

pub mod error;
