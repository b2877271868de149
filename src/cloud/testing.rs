//! An in-memory server for tests that pause time: nothing outside the runtime has to be awaited, so tokio
//! advances the clock exactly to the next timer.

use std::io;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{AccessKeys, Caller, Cloud, CloudConfig, Credentials, Csms, Dial, Socket, Turn};
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;

/// What the server does with a request.
pub(super) enum Reply {
    /// These bytes, as they are.
    Raw(String),
    /// No response; the connection stays open.
    Silence,
    /// No response; the connection is closed.
    Hangup,
    /// The connection is refused.
    Unreachable,
}

/// A complete response.
pub(super) fn reply(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Raw(format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Requests as the server received them.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many requests contain `text`.
    pub(super) fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|head| head.contains(text)).count()
    }
}

/// The value of a header in a request's head.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

type Handler = Arc<dyn Fn(usize, &str) -> Reply + Send + Sync>;

/// A client of a server that responds with `handler`, which receives the number of the request, from 0,
/// and its head.
pub(super) fn cloud(
    env: &Env,
    handler: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> (Csms, Log) {
    let (cloud, log) = client(env, handler);
    (Csms::new(cloud), log)
}

/// The same, before it is bound to a service.
pub(super) fn client(
    env: &Env,
    handler: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> (Cloud, Log) {
    let log = Log::default();
    let handler: Handler = Arc::new(handler);
    let seen = log.clone();
    let dial: Dial = Arc::new(move |_| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let next = seen.len();
        if matches!(handler(next, ""), Reply::Unreachable) {
            seen.0.lock().unwrap().push("unreachable".to_owned());
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) });
        }
        tokio::spawn(serve(ours, seen.clone(), Arc::clone(&handler)));
        Box::pin(async { Ok(Socket::new(theirs)) })
    });
    let config = CloudConfig {
        csms_endpoint: Some("http://csms.test".into()),
        iam_endpoint: Some("http://iam.test".into()),
        ..CloudConfig::default()
    };
    let start: Timestamp = "2024-01-02T03:04:05Z".parse().unwrap();
    let clock = Clock::from_tokio(start);
    let metrics = CloudMetrics::default();
    let cloud = Cloud::with_dial(config, env, clock, Jitter::seeded(1), metrics, dial).unwrap();
    (cloud, log)
}

async fn serve(mut stream: DuplexStream, log: Log, handler: Handler) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        let body = header(&head, "content-length").map_or(0, |n| n.parse().unwrap());
        while buffer.len() < body {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let sent = String::from_utf8(buffer.drain(..body).collect()).unwrap();
        let number = {
            let mut log = log.0.lock().unwrap();
            log.push(format!("{head}{sent}"));
            log.len() - 1
        };
        match handler(number, &head) {
            Reply::Raw(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                if text.contains("connection: close") {
                    return;
                }
            }
            Reply::Silence => std::future::pending().await,
            Reply::Hangup | Reply::Unreachable => return,
        }
    }
}

/// A caller with fixed keys and a project.
pub(super) fn caller() -> Caller {
    let keys = AccessKeys::new("AKTEST", "SKCANARY", None, None);
    Caller {
        region: "cn-north-4".parse().unwrap(),
        project: Some("p1".into()),
        credentials: Credentials::fixed(keys, "test"),
        turn: Turn::default(),
    }
}

/// A successful response of ShowSecretVersion.
pub(super) fn version(id: &str) -> Reply {
    let body = format!(
        r#"{{"version":{{"version_metadata":{{"id":"{id}","create_time":1,"kms_key_id":"k","secret_name":"db","version_stages":["SYSCURRENT"]}},"secret_string":"value"}}}}"#
    );
    reply(200, "x-request-id: r1\r\n", &body)
}
