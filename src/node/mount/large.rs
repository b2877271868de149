//! Limits what large Mounts hold in memory at once, and what they take of the threads. A Mount is large if its
//! values have more than 16 KiB, with expressions less; the others are not delayed.
//!
//! A response is in memory twice until the driver has read it: as files, and encoded. Forty pods of a class with
//! 4 MB of files that start at once would need more than the container's limit.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use prost::Message;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;

use super::error::{MountError, Reason};
use super::fetch::FetchedObject;
use super::response::response;
use super::select::select;
use crate::class::objects::Content;
use crate::proto::MountResponse;
use crate::util::shares::{Share, Shares};

/// Mounts up to this size are not counted, in bytes.
const SMALL: usize = 16 * 1024;
/// An expression takes the time of this many files.
const EXPRESSION: usize = 16;
/// Largest response, in bytes: what one Mount may need.
const LARGEST: u32 = 4 * 1024 * 1024;
/// Bytes of all large responses, from before they are built until the driver has read them.
const BUDGET: u32 = 2 * LARGEST;
const TOO_MANY: &str = "too many large volumes are being mounted on this node at once; kubelet will retry. If \
                        this persists, select less per pod, for example with jmesPath";

/// The room that a large response takes up until it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Room {
    _share: Arc<Share>,
}

/// The large Mounts of this node.
#[derive(Debug)]
pub(super) struct LargeMounts(Shares);

impl Default for LargeMounts {
    fn default() -> Self {
        // A namespace can have one of the largest in flight.
        Self(Shares::new(BUDGET, LARGEST))
    }
}

impl LargeMounts {
    /// Steps 6 and 7. Waits for room if the Mount is large, and then works on a thread where that delays
    /// nothing else.
    ///
    /// # Errors
    /// Those of [`select`] and [`response`], and [`Reason::Internal`] if there is no room before `deadline`.
    pub(super) async fn respond(
        &self,
        namespace: &str,
        fetched: Vec<FetchedObject>,
        default_mode: u32,
        deadline: Instant,
    ) -> Result<(MountResponse, Vec<FetchedObject>, Option<Room>), MountError> {
        if size(&fetched) <= SMALL {
            let built = response(&fetched, select(&fetched)?, default_mode)?;
            return Ok((built, fetched, None));
        }
        let room = timeout_at(deadline, self.0.acquire(namespace, LARGEST)).await;
        let mut room = room.map_err(|_| MountError::new(Reason::Internal, TOO_MANY))?;
        let work = spawn_blocking(move || {
            let built = response(&fetched, select(&fetched)?, default_mode)?;
            room.shrink(built.encoded_len());
            Ok((
                built,
                fetched,
                Some(Room {
                    _share: Arc::new(room),
                }),
            ))
        });
        match work.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// An estimate of the work: the values, once for each file that is selected from them.
fn size(fetched: &[FetchedObject]) -> usize {
    let of = |item: &FetchedObject| {
        let version = item.version.as_ref();
        let value = version.map_or(0, |version| version.value.bytes().len());
        let files = match &item.object.content {
            Content::Whole { extracts, .. } => 1 + extracts.len() * EXPRESSION,
            Content::AllKeys { .. } => 2,
        };
        value.saturating_mul(files)
    };
    fetched.iter().map(of).sum()
}

/// Keeps the room of a response until the driver has read its last byte.
pub fn hold_room(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Some(room) = parts.extensions.remove::<Room>() else {
        return Response::from_parts(parts, body);
    };
    struct Held {
        data: Bytes,
        _room: Room,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.data
        }
    }
    let body = body.map_frame(move |frame| {
        frame.map_data(|data| {
            let _room = room.clone();
            Bytes::from_owner(Held { data, _room })
        })
    });
    Response::from_parts(parts, Body::new(body))
}
