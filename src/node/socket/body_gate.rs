//! Bounds the request bodies in memory: a pod's `volumeAttributes` may have a megabyte, and many pods may start at
//! once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tonic::body::Body;

/// Requests of which the body is read at the same time. It takes a millisecond.
const MAX_READING: usize = 2;

/// Lets requests read their bodies a few at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyGate(Arc<Semaphore>);

impl Default for BodyGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READING)))
    }
}

impl BodyGate {
    /// A request whose body waits for its turn.
    pub fn guard(&self, request: http::Request<Body>) -> http::Request<Body> {
        request.map(|body| {
            Body::new(GatedBody {
                body,
                gate: PollSemaphore::new(Arc::clone(&self.0)),
                turn: None,
            })
        })
    }
}

/// A body that is read while it has its turn, which ends when it is dropped.
struct GatedBody {
    body: Body,
    gate: PollSemaphore,
    turn: Option<OwnedSemaphorePermit>,
}

impl HttpBody for GatedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if self.turn.is_none() {
            // Without a permit the gate is closed, which it never is.
            self.turn = ready!(self.gate.poll_acquire(context));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
