//! Temporary keys of the ECS node's agency, from the metadata service.
//!
//! The steps are those of Huawei's Go SDK (`core/auth/internal/metadata_accessor.go`), which work
//! with nodes that require a session token, that allow one, and that know of none.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::Url;

use super::{AccessKeys, Source, failed};
use crate::cloud::answer::{Answer, Failure};
use crate::cloud::error::ApiError;
use crate::cloud::flight::Flight;
use crate::cloud::http::{Shared as Sender, json};
use crate::observe::metrics::SourceLabels;

/// Time for one request to the metadata service, which is on the same machine.
const REQUEST: Duration = Duration::from_secs(3);

/// After a node said that it knows no session tokens, it is not asked for one for so long.
const NO_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// Keys with less than this left are replaced. They live a day and are renewed hours ahead.
const AHEAD: SignedDuration = SignedDuration::from_mins(40);

/// What a node without an agency says in its 401, as opposed to one that wants a session token.
const NO_AGENCY: &[u8] = b"Please configure Cloud Service Agency first";

/// The source, and the task that renews its keys.
pub(super) struct Agency {
    shared: Arc<Shared>,
    task: OnceLock<AbortHandle>,
}

struct Shared {
    sender: Sender,
    base: Url,
    /// The last good keys, for those who must not wait while new ones are fetched.
    current: RwLock<Option<Arc<AccessKeys>>>,
    flight: Flight<Arc<AccessKeys>, Lack>,
    token: Mutex<Token>,
}

/// The session token of the metadata service.
#[derive(Clone)]
enum Token {
    Unknown,
    Held(HeaderValue),
    Unsupported(Instant),
}

/// Why there are no keys.
#[derive(Clone, Debug)]
enum Lack {
    NotConfigured(String),
    Failed(ApiError),
}

impl From<ApiError> for Lack {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Agency {
    pub(super) fn new(sender: Sender, base: Url) -> Self {
        Self {
            shared: Arc::new(Shared {
                sender,
                base,
                current: RwLock::new(None),
                flight: Flight::default(),
                token: Mutex::new(Token::Unknown),
            }),
            task: OnceLock::new(),
        }
    }

    /// Keys that are good now; inside, why there is no agency; outside, how it failed.
    pub(super) async fn keys(
        &self,
        deadline: Instant,
    ) -> Result<Result<Arc<AccessKeys>, String>, ApiError> {
        if let Some(keys) = self.shared.current() {
            return Ok(Ok(keys));
        }
        match self.shared.get(deadline, |_| true).await {
            Ok(keys) => {
                self.task.get_or_init(|| {
                    tokio::spawn(renew(Arc::downgrade(&self.shared))).abort_handle()
                });
                Ok(Ok(keys))
            }
            Err(Lack::NotConfigured(why)) => Ok(Err(why)),
            Err(Lack::Failed(error)) => Err(error),
        }
    }

    /// Whether the service has other keys than these, which were refused as expired.
    pub(super) async fn renew(
        &self,
        refused: &AccessKeys,
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        let got = self.shared.get(deadline, |keys| !keys.same(refused)).await;
        match got {
            Ok(keys) => Ok(!keys.same(refused)),
            Err(Lack::NotConfigured(why)) => Err(failed(Source::Agency, &why)),
            Err(Lack::Failed(error)) => Err(error),
        }
    }
}

impl Drop for Agency {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// The task: replaces keys ahead of their end, for as long as somebody holds the source.
async fn renew(shared: Weak<Shared>) {
    let longest = Duration::from_secs(600);
    // nodes of a cluster start together and should not ask together
    let Some(spread) = shared
        .upgrade()
        .map(|shared| shared.sender.jitter.up_to(Duration::from_secs(300)))
    else {
        return;
    };
    let mut pause = longest;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let due = |keys: &AccessKeys| {
            shared.left(keys) < AHEAD + SignedDuration::try_from(spread).unwrap_or_default()
        };
        let current = shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        pause = longest;
        if current.as_deref().is_some_and(|keys| !due(keys)) {
            continue;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        match shared.get(deadline, |keys| !due(keys)).await {
            Ok(keys) if !due(&keys) => tracing::info!("credentials of the agency renewed"),
            // the service has no newer ones yet
            Ok(_) => pause = Duration::from_secs(60),
            Err(lack) => {
                let why = match lack {
                    Lack::NotConfigured(why) => why,
                    Lack::Failed(error) => error.to_string(),
                };
                tracing::warn!(
                    why,
                    "credentials of the agency not renewed; using the last ones while they are valid"
                );
                pause =
                    Duration::from_secs(30) + shared.sender.jitter.up_to(Duration::from_secs(30));
            }
        }
    }
}

impl Shared {
    fn left(&self, keys: &AccessKeys) -> SignedDuration {
        keys.expires_at().map_or(SignedDuration::MAX, |end| {
            end.duration_since(self.sender.clock.now())
        })
    }

    fn current(&self) -> Option<Arc<AccessKeys>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .filter(|keys| self.left(keys).is_positive())
            .cloned()
    }

    /// Valid keys that are good enough, fetched where the present ones are not; one fetch for all.
    async fn get(
        &self,
        deadline: Instant,
        good: impl Fn(&AccessKeys) -> bool,
    ) -> Result<Arc<AccessKeys>, Lack> {
        self.flight
            .get(
                "GetSecurityKey",
                deadline,
                |keys| self.left(keys).is_positive() && good(keys),
                async || {
                    let keys = self.fetch(deadline).await?;
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                        Some(Arc::clone(&keys));
                    Ok(keys)
                },
            )
            .await
    }

    async fn fetch(&self, deadline: Instant) -> Result<Arc<AccessKeys>, Lack> {
        let mut answer = self
            .security_key(self.token(deadline).await?, deadline)
            .await?;
        let no_agency = |answer: &Answer| {
            answer
                .body
                .windows(NO_AGENCY.len())
                .any(|window| window == NO_AGENCY)
        };
        if answer.status == StatusCode::UNAUTHORIZED && !no_agency(&answer) {
            // the token has ended, or the node began to require one; now there must be one
            let token = self.new_token(deadline).await?;
            let token = token.ok_or_else(|| {
                self.failed("it refused to answer without a session token, and gives none")
            })?;
            answer = self.security_key(Some(token), deadline).await?;
        }
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if no_agency(&answer) => {
                return Err(Lack::NotConfigured(
                    "this ECS node has no agency; set one in the node's details".to_owned(),
                ));
            }
            StatusCode::NOT_FOUND => {
                return Err(Lack::NotConfigured(format!(
                    "{} has no security keys: not an ECS node",
                    self.base
                )));
            }
            status => return Err(self.failed(&format!("it answered HTTP {}", status.as_u16()))),
        }
        self.read(&answer.body).map_err(|why| self.failed(&why))
    }

    fn read(&self, body: &[u8]) -> Result<Arc<AccessKeys>, String> {
        #[derive(Deserialize)]
        struct Body {
            credential: Credential,
        }
        #[derive(Deserialize)]
        struct Credential {
            access: String,
            secret: String,
            securitytoken: String,
            expires_at: Timestamp,
        }
        let Credential {
            access,
            secret,
            securitytoken,
            expires_at,
        } = json::<Body>(body)
            .map_err(|why| format!("its answer is not what is promised: {why}"))?
            .credential;
        let keys = AccessKeys::new(access, secret, Some(securitytoken), Some(expires_at));
        if !self.left(&keys).is_positive() {
            return Err(format!(
                "its keys expired at {expires_at}: is the clock right?"
            ));
        }
        let source = Source::Agency.name();
        self.sender
            .metrics
            .credential_expiry
            .get_or_create(&SourceLabels { source })
            .set(expires_at.as_second());
        Ok(Arc::new(keys))
    }

    /// The token to send, if any.
    async fn token(&self, deadline: Instant) -> Result<Option<HeaderValue>, Lack> {
        let known = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match known {
            Token::Held(token) => Ok(Some(token)),
            Token::Unsupported(since) if since.elapsed() < NO_TOKEN => Ok(None),
            Token::Unknown | Token::Unsupported(_) => self.new_token(deadline).await,
        }
    }

    /// Asks for a token; `None` where the node knows none.
    async fn new_token(&self, deadline: Instant) -> Result<Option<HeaderValue>, Lack> {
        let ttl = (
            "x-metadata-token-ttl-seconds",
            HeaderValue::from_static("21600"),
        );
        let answer = self
            .ask(
                "PutMetadataToken",
                Method::PUT,
                "/meta-data/latest/api/token",
                Some(ttl),
                deadline,
            )
            .await?;
        let token = match answer.status.as_u16() {
            200 => {
                let mut token = HeaderValue::from_bytes(answer.body.trim_ascii())
                    .map_err(|_| self.failed("its session token cannot be sent in a header"))?;
                token.set_sensitive(true);
                Token::Held(token)
            }
            404 | 405 | 503 => Token::Unsupported(Instant::now()),
            status => {
                let why = format!("it answered HTTP {status} when asked for a session token");
                return Err(self.failed(&why));
            }
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        Ok(match token {
            Token::Held(token) => Some(token),
            Token::Unknown | Token::Unsupported(_) => None,
        })
    }

    async fn security_key(
        &self,
        token: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<Answer, Lack> {
        let token = token.map(|token| ("x-metadata-token", token));
        self.ask(
            "GetSecurityKey",
            Method::GET,
            "/openstack/latest/securitykey",
            token,
            deadline,
        )
        .await
    }

    async fn ask(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        header: Option<(&'static str, HeaderValue)>,
        deadline: Instant,
    ) -> Result<Answer, Lack> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base.as_str().trim_end_matches('/'))
            .parse()
            .map_err(|_| self.failed("--metadata-endpoint gives no valid URL"))?;
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value);
        }
        let until = deadline.min(Instant::now() + REQUEST);
        let result = self.sender.direct(operation, request, until).await;
        result.map_err(|failure: Failure| {
            let why = format!(
                "no metadata service answers at {}: {}",
                self.base, failure.message
            );
            let had = self
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some();
            if had {
                self.failed(&why)
            } else {
                // as on any machine that is no ECS node
                Lack::NotConfigured(why)
            }
        })
    }

    fn failed(&self, why: &str) -> Lack {
        Lack::Failed(failed(
            Source::Agency,
            &format!("the metadata service: {why}"),
        ))
    }
}
