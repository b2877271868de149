//! Step 2, objects: parses and checks the `objects` list. Caches the result by the text of the list, which
//! all volumes of a class share.
//!
//! A list is a tenant's, and parsed it is larger than its text. Large ones are parsed one at a time, off the
//! threads of other Mounts, and only so many are in memory at once; a namespace that has many waits for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use tokio::time::timeout_at;

use super::error::{MountError, Reason};
use super::request::Request;
use crate::class::objects::{Content, Objects, Problem};
use crate::util::shares::{Share, Shares};
use crate::util::text::{fitting, one_line};

/// Maximum size of the cached lists, in bytes.
const MAX_CACHED: usize = 1024 * 1024;
/// Size of a list that is large, in bytes of text. Smaller ones take less than a millisecond.
const LARGE: usize = 8 * 1024;
/// Large lists of Mounts in flight, in bytes of text, and those of one namespace.
const MAX_IN_FLIGHT: u32 = 4 * 1024 * 1024;
const MAX_IN_FLIGHT_PER_NAMESPACE: u32 = 512 * 1024;
/// Estimated memory of an object and of a `jmesPath` item in addition to their text, in bytes.
const OBJECT_OVERHEAD: usize = 512;
const EXTRACT_OVERHEAD: usize = 256;

type TextHash = [u8; 32];
/// Problems are cached too, because kubelet retries the Mounts of an invalid list.
type Parsed = Result<Arc<Objects>, Arc<[Problem]>>;

#[derive(Debug, Default)]
struct CachedLists {
    by_text: HashMap<TextHash, Parsed>,
    bytes: usize,
}

/// Maximum size of all problems of a list in one message, in bytes.
const MAX_PROBLEMS: usize = 3500;
/// Longest name of an object in Kubernetes, in characters.
const MAX_CLASS: usize = 253;

/// The recently used lists.
#[derive(Debug)]
pub(super) struct ObjectsCache {
    cached: Mutex<CachedLists>,
    in_flight: Shares,
    parsing: Shares,
}

impl Default for ObjectsCache {
    fn default() -> Self {
        Self {
            cached: Mutex::default(),
            in_flight: Shares::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_PER_NAMESPACE),
            parsing: Shares::new(1, 1),
        }
    }
}

impl ObjectsCache {
    /// The checked `objects` of a request. The share is to be kept as long as they are.
    pub(super) async fn get(
        &self,
        request: &Request,
    ) -> Result<(Arc<Objects>, Option<Share>), MountError> {
        let class = &request.class;
        let Some(text) = request.parameters.objects.as_deref() else {
            return Err(MountError::new(
                Reason::Invalid,
                format!(
                    "SecretProviderClass {class:?} has no parameter objects: set it to a YAML list of secrets"
                ),
            ));
        };
        if text.len() < LARGE {
            let objects = self.parse(text).map_err(|why| invalid(class, &why))?;
            return Ok((objects, None));
        }
        let namespace = &request.pod.namespace;
        let wait = async {
            let size = u32::try_from(text.len()).unwrap_or(u32::MAX);
            let share = self.in_flight.acquire(namespace, size).await;
            let turn = self.parsing.acquire(namespace, 1).await;
            (share, turn)
        };
        let Ok((share, _turn)) = timeout_at(request.deadline, wait).await else {
            let message = format!(
                "SecretProviderClass {class:?}: other Mounts of namespace {namespace} with large lists of \
                 objects are in progress; kubelet will retry"
            );
            return Err(MountError::new(Reason::Internal, message));
        };
        if let Some(known) = self.known(&hash(text)) {
            let objects = known.map_err(|why| invalid(class, &why))?;
            return Ok((objects, Some(share)));
        }
        let owned = text.to_owned();
        let parsed = tokio::task::spawn_blocking(move || {
            Objects::parse(&owned).map(Arc::new).map_err(Arc::from)
        });
        let parsed = parsed.await.map_err(|_| {
            let message = "internal error in dew-provider; please report this bug with its log";
            MountError::new(Reason::Internal, message)
        })?;
        self.remember(hash(text), text.len(), &parsed);
        let objects = parsed.map_err(|why| invalid(class, &why))?;
        Ok((objects, Some(share)))
    }

    fn parse(&self, text: &str) -> Parsed {
        let hash = hash(text);
        self.known(&hash).unwrap_or_else(|| {
            let parsed = Objects::parse(text).map(Arc::new).map_err(Arc::from);
            self.remember(hash, text.len(), &parsed);
            parsed
        })
    }

    fn known(&self, hash: &TextHash) -> Option<Parsed> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.by_text.get(hash).cloned()
    }

    fn remember(&self, hash: TextHash, text: usize, parsed: &Parsed) {
        let size = OBJECT_OVERHEAD + size_of(text, parsed);
        if size > MAX_CACHED / 4 {
            return;
        }
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.bytes + size > MAX_CACHED {
            // This is so rare that dropping all lists is as good as choosing one.
            *cached = CachedLists::default();
        }
        if cached.by_text.insert(hash, parsed.clone()).is_none() {
            cached.bytes += size;
        }
    }
}

/// About how much memory a parsed list takes, in bytes.
fn size_of(text: usize, parsed: &Parsed) -> usize {
    match parsed {
        Err(problems) => problems.iter().map(|problem| problem.reason.len()).sum(),
        Ok(objects) => {
            let of = |content: &Content| match content {
                Content::Whole { extracts, .. } => extracts.len() * EXTRACT_OVERHEAD,
                Content::AllKeys { .. } => 0,
            };
            let objects = objects.list.iter();
            text + objects
                .map(|object| OBJECT_OVERHEAD + of(&object.content))
                .sum::<usize>()
        }
    }
}

fn hash(text: &str) -> TextHash {
    let mut hash = TextHash::default();
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn invalid(class: &str, problems: &[Problem]) -> MountError {
    let known = problems.iter().filter(|problem| problem.left_out == 0);
    let (mut text, left_out) = fitting(known, "; ", problems.len(), MAX_PROBLEMS);
    let left_out = left_out + problems.iter().map(|p| p.left_out).sum::<usize>();
    if left_out > 0 {
        text.push_str(&format!("; {left_out} more problems"));
    }
    let class = one_line(class, MAX_CLASS);
    MountError::new(
        Reason::Invalid,
        format!("SecretProviderClass {class:?}: {text}"),
    )
}
