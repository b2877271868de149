//! Temporary keys of the ECS node's agency, from the metadata service.
//!
//! The steps are those of Huawei's Go SDK (`core/auth/internal/metadata_accessor.go`), which work on
//! nodes that require a session token, on nodes that accept one, and on nodes that do not support them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::Url;

use super::access_keys::AccessKeys;
use super::source::{Source, SourceError};
use crate::cloud::error::ApiError;
use crate::cloud::response::{ApiResponse, AttemptError};
use crate::cloud::transport::body::json;
use crate::cloud::transport::{Attempt, Route, Transport};
use crate::telemetry::metrics::SourceLabels;
use crate::util::clock::{Clock, Jitter};
use crate::util::single_flight::CachedFetch;

/// Limit of one request to the metadata service, which is on the same machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long no session token is requested after the node turned out not to support them.
const NO_TOKEN_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys that expire sooner than this are replaced. They live for a day and are renewed hours ahead.
const RENEW_BEFORE_EXPIRY: SignedDuration = SignedDuration::from_mins(40);

/// Maximum time between two checks of whether the keys are due for renewal.
const CHECK_EVERY: Duration = Duration::from_secs(600);

/// Spreads renewals, because the nodes of a cluster may start at the same time.
const RENEWAL_SPREAD: Duration = Duration::from_secs(300);

/// The body of a 401 from a node without an agency; any other 401 means that a session token is required.
const NO_AGENCY: &[u8] = b"Please configure Cloud Service Agency first";

/// The source, and the task that renews its keys.
pub(in crate::cloud) struct EcsAgency {
    metadata: Arc<MetadataService>,
    renewal: OnceLock<AbortHandle>,
}

struct MetadataService {
    transport: Arc<Transport>,
    clock: Clock,
    jitter: Jitter,
    base: Url,
    keys: CachedFetch<Arc<AccessKeys>, SourceError>,
    token: Mutex<SessionToken>,
}

/// The session token of the metadata service.
#[derive(Clone)]
enum SessionToken {
    Unknown,
    Held(HeaderValue),
    Unsupported(Instant),
}

impl EcsAgency {
    /// The agency of the node whose metadata service is at `base`. Sends nothing yet.
    pub(in crate::cloud) fn new(
        transport: Arc<Transport>,
        clock: Clock,
        jitter: Jitter,
        base: Url,
    ) -> Self {
        Self {
            metadata: Arc::new(MetadataService {
                transport,
                clock,
                jitter,
                base,
                keys: CachedFetch::default(),
                token: Mutex::new(SessionToken::Unknown),
            }),
            renewal: OnceLock::new(),
        }
    }

    /// Keys that are valid now.
    pub(super) async fn keys(&self, deadline: Instant) -> Result<Arc<AccessKeys>, SourceError> {
        let keys = self.metadata.get(deadline, |_| true).await?;
        self.renewal
            .get_or_init(|| tokio::spawn(renew(Arc::downgrade(&self.metadata))).abort_handle());
        Ok(keys)
    }

    /// Whether the service has other keys than `refused`, which were rejected as expired.
    pub(super) async fn renew(
        &self,
        refused: &AccessKeys,
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        let keys = self.metadata.get(deadline, |keys| !keys.same(refused));
        match keys.await {
            Ok(keys) => Ok(!keys.same(refused)),
            Err(error) => Err(error.into_api_error(Source::Agency)),
        }
    }
}

impl Drop for EcsAgency {
    fn drop(&mut self) {
        if let Some(task) = self.renewal.get() {
            task.abort();
        }
    }
}

/// Replaces the keys ahead of their expiry for as long as the source exists.
async fn renew(metadata: Weak<MetadataService>) {
    let Some(spread) = metadata
        .upgrade()
        .map(|metadata| metadata.jitter.up_to(RENEWAL_SPREAD))
    else {
        return;
    };
    let ahead = RENEW_BEFORE_EXPIRY + SignedDuration::try_from(spread).unwrap_or_default();
    let mut pause = CHECK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(metadata) = metadata.upgrade() else {
            return;
        };
        let due = |keys: &AccessKeys| metadata.left(keys) < ahead;
        pause = CHECK_EVERY;
        if metadata.keys.cached().is_some_and(|keys| !due(&keys)) {
            continue;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        match metadata.get(deadline, |keys| !due(keys)).await {
            Ok(keys) if !due(&keys) => tracing::info!("renewed the agency's credentials"),
            // The service has no newer keys yet.
            Ok(_) => pause = Duration::from_secs(60),
            Err(error) => {
                let why = match error {
                    SourceError::NotConfigured(why) => why,
                    SourceError::Failed(error) => error.to_string(),
                };
                tracing::warn!(
                    why,
                    "could not renew the agency's credentials; using the last ones while they are valid"
                );
                pause = Duration::from_secs(30) + metadata.jitter.up_to(Duration::from_secs(30));
            }
        }
    }
}

impl MetadataService {
    fn left(&self, keys: &AccessKeys) -> SignedDuration {
        keys.expires_at().map_or(SignedDuration::MAX, |end| {
            end.duration_since(self.clock.now())
        })
    }

    /// Valid keys that `is_good` accepts, fetched if the cached ones are not. Concurrent callers share
    /// one fetch.
    async fn get(
        self: &Arc<Self>,
        deadline: Instant,
        is_good: impl Fn(&AccessKeys) -> bool,
    ) -> Result<Arc<AccessKeys>, SourceError> {
        self.keys
            .get(
                deadline,
                |keys| self.left(keys).is_positive() && is_good(keys),
                || {
                    let metadata = Arc::clone(self);
                    async move { metadata.fetch(deadline).await }.boxed()
                },
                |lost| SourceError::Failed(ApiError::from_flight("GetSecurityKey", lost)),
            )
            .await
    }

    async fn fetch(&self, deadline: Instant) -> Result<Arc<AccessKeys>, SourceError> {
        let mut response = self
            .security_key(self.token(deadline).await?, deadline)
            .await?;
        let no_agency = |response: &ApiResponse| {
            response
                .body
                .windows(NO_AGENCY.len())
                .any(|window| window == NO_AGENCY)
        };
        if response.status == StatusCode::UNAUTHORIZED && !no_agency(&response) {
            // The token has expired, or the node began to require one.
            let token = self.new_token(deadline).await?;
            let token = token
                .ok_or_else(|| self.failed("it requires a session token but does not issue one"))?;
            response = self.security_key(Some(token), deadline).await?;
        }
        match response.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED if no_agency(&response) => {
                return Err(SourceError::NotConfigured(
                    "this ECS node has no agency; set one in the node's details".to_owned(),
                ));
            }
            StatusCode::NOT_FOUND => {
                return Err(SourceError::NotConfigured(format!(
                    "{} has no security keys: not an ECS node",
                    self.base
                )));
            }
            status => return Err(self.failed(&format!("it returned HTTP {}", status.as_u16()))),
        }
        self.parse(&response.body).map_err(|why| self.failed(&why))
    }

    fn parse(&self, body: &[u8]) -> Result<Arc<AccessKeys>, String> {
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
            .map_err(|why| format!("unexpected response: {why}"))?
            .credential;
        let keys = AccessKeys::new(access, secret, Some(securitytoken), Some(expires_at));
        if !self.left(&keys).is_positive() {
            return Err(format!(
                "its keys expired at {expires_at}; check the clock of this machine"
            ));
        }
        let source = Source::Agency.name();
        self.transport
            .metrics()
            .credential_expiry
            .get_or_create(&SourceLabels { source })
            .set(expires_at.as_second());
        Ok(Arc::new(keys))
    }

    /// The session token to send, if any.
    async fn token(&self, deadline: Instant) -> Result<Option<HeaderValue>, SourceError> {
        let known = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match known {
            SessionToken::Held(token) => Ok(Some(token)),
            SessionToken::Unsupported(since) if since.elapsed() < NO_TOKEN_FOR => Ok(None),
            SessionToken::Unknown | SessionToken::Unsupported(_) => self.new_token(deadline).await,
        }
    }

    /// Requests a session token; `None` if the node does not support them.
    async fn new_token(&self, deadline: Instant) -> Result<Option<HeaderValue>, SourceError> {
        let ttl = (
            "x-metadata-token-ttl-seconds",
            HeaderValue::from_static("21600"),
        );
        let response = self
            .request(
                "PutMetadataToken",
                Method::PUT,
                "/meta-data/latest/api/token",
                Some(ttl),
                deadline,
            )
            .await?;
        let token = match response.status.as_u16() {
            200 => {
                let mut token = HeaderValue::from_bytes(response.body.trim_ascii())
                    .map_err(|_| self.failed("its session token is not a valid header value"))?;
                token.set_sensitive(true);
                SessionToken::Held(token)
            }
            404 | 405 | 503 => SessionToken::Unsupported(Instant::now()),
            status => {
                let why = format!("it returned HTTP {status} to a request for a session token");
                return Err(self.failed(&why));
            }
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        Ok(match token {
            SessionToken::Held(token) => Some(token),
            SessionToken::Unknown | SessionToken::Unsupported(_) => None,
        })
    }

    async fn security_key(
        &self,
        token: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<ApiResponse, SourceError> {
        let token = token.map(|token| ("x-metadata-token", token));
        self.request(
            "GetSecurityKey",
            Method::GET,
            "/openstack/latest/securitykey",
            token,
            deadline,
        )
        .await
    }

    async fn request(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        header: Option<(&'static str, HeaderValue)>,
        deadline: Instant,
    ) -> Result<ApiResponse, SourceError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base.as_str().trim_end_matches('/'))
            .parse()
            .map_err(|_| self.failed("--metadata-endpoint is not a valid URL"))?;
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value);
        }
        let until = deadline.min(Instant::now() + REQUEST_TIMEOUT);
        let host = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let attempt = Attempt {
            operation,
            host: &host,
            number: 1,
        };
        let result = self
            .transport
            .attempt(attempt, Route::Direct, request, until, Ok)
            .await;
        result.map_err(|error: AttemptError| {
            let why = format!(
                "no metadata service responds at {}: {}",
                self.base, error.message
            );
            if self.keys.cached().is_some() {
                self.failed(&why)
            } else {
                // As on any machine that is not an ECS node.
                SourceError::NotConfigured(why)
            }
        })
    }

    fn failed(&self, why: &str) -> SourceError {
        SourceError::Failed(Source::Agency.error(&format!("the metadata service: {why}")))
    }
}
