//! Verification of request signatures.
//!
//! Written from the documented algorithm alone. It shares nothing with the client's signer, so that
//! an error in either one makes verification fail.

mod canonical;
mod verify;

pub(super) use verify::{ReceivedRequest, SignatureVerifier, TemporaryKeys, VerifiedCaller};
