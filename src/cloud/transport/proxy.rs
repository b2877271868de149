//! The proxy of the environment: which requests take it, its tunnel, and its errors.

use std::error::Error;
use std::fmt;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::no_proxy::NoProxy;
use crate::util::env::Env;
use crate::util::text::{causes, one_line};

/// Longest head of a response to CONNECT, in bytes.
const MAX_HEAD: usize = 8192;
const HTTPS_PORT: u16 = 443;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// An HTTP proxy.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Its URL, without user and password.
    pub(super) url: Uri,
    auth: Option<HeaderValue>,
    except: NoProxy,
    /// The environment variable that sets it.
    variable: &'static str,
}

impl Proxy {
    /// The proxy for requests to `https://` URLs: that of `HTTPS_PROXY` or `ALL_PROXY`. Plain `http://` URLs, which
    /// only an emulator has, are reached directly.
    ///
    /// # Errors
    /// Why the variable cannot be used; the text contains no password.
    pub(super) fn from_env(env: &Env) -> Result<Option<Self>, String> {
        let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let Some(variable) = names.into_iter().find(|name| env.get(name).is_some()) else {
            return Ok(None);
        };
        let text = env.get(variable).unwrap_or_default();
        let parsed = Matcher::builder()
            .https(text.to_owned())
            .build()
            .intercept(&Uri::from_static("https://example.com/"))
            .filter(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https")));
        let Some(parsed) = parsed else {
            // The URL may contain a password.
            return Err(format!(
                "{variable} is not the URL of an HTTP proxy, such as http://proxy.example:3128"
            ));
        };
        let except = env.first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        Ok(Some(Self {
            url: parsed.uri().clone(),
            auth: parsed.basic_auth().cloned(),
            except: NoProxy::parse(except),
            variable,
        }))
    }

    /// Whether a request to `url` takes the proxy.
    pub(super) fn is_for(&self, url: &Uri) -> bool {
        let port = url.port_u16().unwrap_or(HTTPS_PORT);
        url.scheme_str() == Some("https")
            && url
                .host()
                .is_some_and(|host| !self.except.contains(host, port))
    }

    /// Opens a tunnel to the host of `target` through a connection to the proxy.
    ///
    /// # Errors
    /// If the proxy does not agree.
    pub(super) async fn tunnel<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut connection: T,
        target: &Uri,
    ) -> Result<T, BoxError> {
        let host = target.host().unwrap_or_default();
        let port = target.port_u16().unwrap_or(HTTPS_PORT);
        let mut head =
            format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(auth) = &self.auth {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(auth.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        connection
            .write_all(&head)
            .await
            .map_err(|error| self.error(Stage::Broken, error))?;

        let mut answer = Vec::new();
        // Through the tunnel the client speaks first: nothing follows the head.
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = connection.read_buf(&mut answer).await;
            match read.map_err(|error| self.error(Stage::Broken, error))? {
                0 if answer.is_empty() => return Err(self.error(Stage::Closed, "")),
                _ if answer.len() > MAX_HEAD => return Err(self.error(Stage::NotHttp, "")),
                0 => break,
                _ => {}
            }
        }
        match status(&answer) {
            Some((200..=299, _)) => Ok(connection),
            Some((407, _)) => Err(self.error(
                Stage::Authentication {
                    given: self.auth.is_some(),
                },
                "",
            )),
            Some((status, reason)) => {
                let target = format!("{host}:{port}");
                Err(self.error(Stage::Refused { target, status }, reason))
            }
            None => Err(self.error(Stage::NotHttp, "")),
        }
    }

    /// An error that names the proxy.
    pub(super) fn error(&self, stage: Stage, source: impl Into<BoxError>) -> BoxError {
        Box::new(ProxyError {
            proxy: self.authority(),
            variable: self.variable,
            stage,
            source: source.into(),
        })
    }

    /// Host and port, without user and password.
    pub(super) fn authority(&self) -> String {
        let host = self.url.host().unwrap_or_default();
        let default = if self.url.scheme_str() == Some("https") {
            HTTPS_PORT
        } else {
            80
        };
        format!("{host}:{}", self.url.port_u16().unwrap_or(default))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.authority())
    }
}

/// The status and reason of a response, if it is one of HTTP/1.
fn status(answer: &[u8]) -> Option<(u16, String)> {
    let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next()?).into_owned();
    let rest = line.strip_prefix("HTTP/1.")?.get(1..)?.strip_prefix(' ')?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = code.parse().ok().filter(|code| (100..600).contains(code))?;
    Some((code, one_line(reason, 64)))
}

/// What the proxy failed to do.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is no connection to it.
    Unreachable,
    /// It ended the connection without an answer.
    Closed,
    /// The connection to it broke.
    Broken,
    /// It requires a user and password, or others.
    Authentication {
        /// Whether the variable contains some.
        given: bool,
    },
    /// It does not connect to the target.
    Refused {
        /// Host and port.
        target: String,
        /// Its HTTP status.
        status: u16,
    },
    /// It does not speak HTTP.
    NotHttp,
    /// It made the tunnel, but nothing useful came through.
    Beyond,
    /// Neither it nor the target answered in time.
    TimedOut,
}

/// A connection through a proxy that failed.
#[derive(Debug)]
pub(super) struct ProxyError {
    proxy: String,
    variable: &'static str,
    stage: Stage,
    source: BoxError,
}

impl ProxyError {
    /// That the connection takes the proxy.
    pub(super) fn route(&self) -> String {
        format!("through the proxy {} of {}", self.proxy, self.variable)
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match &self.stage {
            Stage::Authentication { .. } | Stage::NotHttp => false,
            Stage::Refused { status, .. } => *status >= 500,
            _ => true,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            proxy,
            variable,
            stage,
            source,
        } = self;
        match stage {
            Stage::Unreachable => {
                write!(
                    f,
                    "the proxy {proxy} cannot be reached: {}",
                    causes(&**source)
                )
            }
            Stage::Closed => write!(
                f,
                "the proxy {proxy} closed the connection without an answer"
            ),
            Stage::Broken => {
                write!(
                    f,
                    "the connection to the proxy {proxy} broke: {}",
                    causes(&**source)
                )
            }
            Stage::Authentication { given: false } => write!(
                f,
                "the proxy {proxy} requires authentication (HTTP 407): add user and password to its URL"
            ),
            Stage::Authentication { given: true } => write!(
                f,
                "the proxy {proxy} does not accept the user and password in its URL (HTTP 407)"
            ),
            Stage::Refused { target, status } => {
                write!(
                    f,
                    "the proxy {proxy} does not connect to {target} (HTTP {status}"
                )?;
                let reason = source.to_string();
                let space = if reason.is_empty() { "" } else { " " };
                write!(f, "{space}{reason})")
            }
            Stage::NotHttp => write!(f, "the answer of {proxy} is not that of an HTTP proxy"),
            Stage::Beyond => {
                write!(
                    f,
                    "the connection through the proxy {proxy} failed: {}",
                    causes(&**source)
                )
            }
            Stage::TimedOut => write!(
                f,
                "the connection through the proxy {proxy} was not made: {source}"
            ),
        }?;
        write!(f, "; check {variable} and NO_PROXY")
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.stage {
            Stage::Unreachable | Stage::Broken | Stage::Beyond => Some(&*self.source),
            _ => None,
        }
    }
}
