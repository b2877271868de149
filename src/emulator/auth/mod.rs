//! Who signed a request, and whether they did. Written from the documented algorithm alone; shares
//! nothing with the client's signer, so that an error in one is seen by the other.

mod canonical;
mod verify;

pub(super) use verify::{Caller, Guard, Received, Temporary};
