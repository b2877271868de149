//! Limits what large Mounts hold in memory at once. A Mount is large if its values or files have more than
//! 16 KiB; the others are not delayed.
//!
//! A response is in memory twice until the driver has read it: as files, and encoded. Forty pods of a class with
//! 4 MB of files that start at once would need more than the container's limit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;

use super::error::{MountError, Reason};
use super::fetch::FetchedObject;
use super::response::response;
use super::select::select;
use crate::class::objects::Content;
use crate::proto::MountResponse;

/// Mounts up to this size are not counted, in bytes.
const SMALL: usize = 16 * 1024;
/// Largest response, in bytes: what one Mount may need.
const LARGEST: u32 = 4 * 1024 * 1024;
/// Bytes of all large responses, from before they are built until the driver has read them.
const BUDGET: u32 = 2 * LARGEST;
const TOO_MANY: &str = "too many large volumes are being mounted on this node at once; kubelet will retry. If \
                        this persists, select less per pod, for example with jmesPath";

/// The room that a large response takes up until it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Room {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The large Mounts of this node.
pub(super) struct LargeMounts {
    room: Arc<Semaphore>,
    /// One large Mount of each namespace is worked on at a time, so that the others' need not queue behind all
    /// of them.
    turns: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Default for LargeMounts {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(BUDGET as usize)),
            turns: Mutex::default(),
        }
    }
}

impl LargeMounts {
    /// Steps 6 and 7. Waits for its turn if the Mount is large, and then works on a thread where that delays
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
        let too_many = || MountError::new(Reason::Internal, TOO_MANY);
        let turn = self.turn(namespace);
        let waited = async {
            let turn = turn.acquire_owned().await;
            let room = Arc::clone(&self.room).acquire_many_owned(LARGEST).await;
            // Neither semaphore is ever closed.
            turn.ok().zip(room.ok())
        };
        let admitted = timeout_at(deadline, waited).await.ok().flatten();
        let (turn, mut room) = admitted.ok_or_else(too_many)?;
        let work = spawn_blocking(move || {
            let built = response(&fetched, select(&fetched)?, default_mode)?;
            drop(turn);
            // Give back what the response does not need.
            let needed = built.encoded_len().min(LARGEST as usize);
            drop(room.split(LARGEST as usize - needed));
            let permit = Arc::new(room);
            Ok((built, fetched, Some(Room { _permit: permit })))
        });
        match work.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn turn(&self, namespace: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(namespace).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Semaphore::new(1));
            turns.insert(namespace.to_owned(), Arc::downgrade(&new));
            new
        })
    }
}

/// An estimate of the work: the values, once for each file that is selected from them.
fn size(fetched: &[FetchedObject]) -> usize {
    let of = |item: &FetchedObject| {
        let version = item.version.as_ref();
        let value = version.map_or(0, |version| version.value.bytes().len());
        let files = match &item.object.content {
            Content::Whole { extracts, .. } => 1 + extracts.len(),
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

impl fmt::Debug for LargeMounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LargeMounts")
    }
}
