//! Watches: what changes, line by line, for as long as somebody listens.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use super::route::{Refused, Route};
use super::{ApiServer, Reply, status};

/// As long as a real server lets a watch go on that names no time.
const LONGEST: Duration = Duration::from_secs(30 * 60);

impl ApiServer {
    pub(super) fn watch(&self, route: &Route) -> Result<Reply, Refused> {
        let newest = self.0.newest.subscribe();
        let mut epoch = self.0.epoch.subscribe();
        epoch.mark_unchanged();
        let after = route.after.unwrap_or_else(|| self.state().objects.newest());
        let (resource, selection) = (route.resource.clone(), route.selection.clone());
        let server = self.clone();
        let end = tokio::time::Instant::now() + LONGEST;
        let lines = stream::unfold(Some(after), move |after| {
            let (server, resource, selection) =
                (server.clone(), resource.clone(), selection.clone());
            let (mut newest, mut epoch) = (newest.clone(), epoch.clone());
            async move {
                let mut after = after?;
                loop {
                    newest.mark_unchanged();
                    let mut text = Vec::new();
                    {
                        let state = server.state();
                        let Some(changes) = state.objects.since(after) else {
                            let gone =
                                status(StatusCode::GONE, "Expired", "too old resource version");
                            let line = json!({"type": "ERROR", "object": gone});
                            return Some((frame(format!("{line}\n").into_bytes()), None));
                        };
                        for change in changes {
                            after = change.revision;
                            if change.resource == resource
                                && selection.has(&change.name, &change.stored)
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
}

fn frame(text: Vec<u8>) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(text.into()))
}
