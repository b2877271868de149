//! Watches: a stream of changes, one JSON object per line.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use super::reply::{HttpReply, StatusError, status};
use super::route::ResourceRoute;
use super::state::ServerShared;

/// Longest watch. A real server ends a watch without `timeoutSeconds` after 30 to 60 minutes.
const MAX_WATCH: Duration = Duration::from_secs(30 * 60);

/// Streams changes after the requested resource version, or after the newest one.
pub(super) fn watch(
    server: &Arc<ServerShared>,
    route: &ResourceRoute,
) -> Result<HttpReply, StatusError> {
    let newest = server.newest.subscribe();
    let mut epoch = server.epoch.subscribe();
    epoch.mark_unchanged();
    let after = route
        .after
        .unwrap_or_else(|| server.state().objects.newest());
    let (resource, selector) = (route.resource.clone(), route.selector.clone());
    let server = Arc::clone(server);
    let end = tokio::time::Instant::now() + MAX_WATCH;
    let lines = stream::unfold(Some(after), move |after| {
        let (server, resource, selector) = (server.clone(), resource.clone(), selector.clone());
        let (mut newest, mut epoch) = (newest.clone(), epoch.clone());
        async move {
            let mut after = after?;
            loop {
                newest.mark_unchanged();
                let mut text = Vec::new();
                {
                    let state = server.state();
                    let Some(changes) = state.objects.since(after) else {
                        let gone = status(StatusCode::GONE, "Expired", "too old resource version");
                        let line = json!({"type": "ERROR", "object": gone});
                        return Some((frame(format!("{line}\n").into_bytes()), None));
                    };
                    for change in changes {
                        after = change.revision;
                        if change.resource == resource
                            && selector.matches(&change.name, &change.stored)
                        {
                            text.extend(
                                format!("{{\"type\":\"{}\",\"object\":", change.kind).bytes(),
                            );
                            text.extend(&change.stored.text);
                            text.extend(b"}\n");
                        }
                    }
                }
                if !text.is_empty() {
                    return Some((frame(text), Some(after)));
                }
                tokio::select! {
                    changed = newest.changed() => changed.ok()?,
                    changed = epoch.changed() => { changed.ok()?; return None; }
                    () = tokio::time::sleep_until(end) => return None,
                }
            }
        }
    });
    Ok(Response::new(StreamBody::new(lines).boxed_unsync()))
}

fn frame(text: Vec<u8>) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(text.into()))
}
