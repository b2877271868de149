//! A call, and its signed request.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use jiff::Timestamp;
use url::Url;

use crate::cloud::credentials::{AccessKeys, Credentials};
use crate::cloud::error::ErrorKind;
use crate::cloud::rate_limit::{RateLimiter, Turn};
use crate::cloud::response::AttemptError;
use crate::cloud::retry::Retryability;
use crate::cloud::sign::{self, Parts};

/// Not signed, because proxies may change it.
const USER_AGENT: &str = concat!("dew-provider/", env!("CARGO_PKG_VERSION"));

/// One call of an API.
pub(in crate::cloud) struct Call<'a> {
    pub(in crate::cloud) operation: &'static str,
    pub(in crate::cloud) method: Method,
    pub(in crate::cloud) base: &'a Url,
    /// Segments before encoding; none is empty, `.` or `..`.
    pub(in crate::cloud) path: &'a [&'a str],
    pub(in crate::cloud) query: &'a [(String, String)],
    pub(in crate::cloud) body: Bytes,
    /// Whether sending it twice has the same effect as sending it once.
    pub(in crate::cloud) idempotent: bool,
    /// The rate limit that it counts against.
    pub(in crate::cloud) limiter: &'a RateLimiter,
    /// Whose share of the rate limit and of the retries it uses.
    pub(in crate::cloud) turn: &'a Turn,
}

/// Whose keys sign a call.
#[derive(Clone, Copy)]
pub(in crate::cloud) struct Signer<'a> {
    pub(in crate::cloud) credentials: &'a Credentials,
    pub(in crate::cloud) project: Option<&'a str>,
}

/// Host and port as in the `Host` header.
pub(super) fn host(base: &Url) -> String {
    base[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

/// Builds and signs the request of a call.
pub(super) fn signed(
    call: &Call<'_>,
    keys: &AccessKeys,
    project: Option<&str>,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, AttemptError> {
    let wrong = |what: &str| {
        let text = format!("{what} cannot be sent in a header");
        AttemptError::local(ErrorKind::Credentials, Retryability::Never, text)
    };
    let host = host(call.base);
    let path: String = call
        .path
        .iter()
        .flat_map(|segment| ["/".to_owned(), sign::encode(segment)])
        .collect();
    let mut headers = vec![("content-type", "application/json"), ("host", &host)];
    headers.extend(project.map(|project| ("x-project-id", project)));
    headers.extend(
        keys.security_token()
            .map(|token| ("x-security-token", token)),
    );
    let parts = Parts {
        method: call.method.as_str(),
        path: &path,
        query: call.query,
        headers: &headers,
    };
    let signature = sign::sign(
        &parts,
        &call.body,
        keys.access_key(),
        keys.secret_key(),
        now,
    );

    let mut url = format!("{}://{host}{path}", call.base.scheme());
    if !call.query.is_empty() {
        url.push('?');
        url.push_str(&sign::canonical_query(call.query));
    }
    let uri: Uri = url.parse().map_err(|_| {
        let text = "the request has no valid URL";
        AttemptError::local(ErrorKind::Configuration, Retryability::Never, text)
    })?;
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    let map = request.headers_mut();
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    // hyper writes Host, or :authority, from the URL.
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong(name))?;
        value.set_sensitive(name == "x-security-token");
        map.insert(HeaderName::from_static(name), value);
    }
    let date = HeaderValue::from_str(&signature.date).map_err(|_| wrong("x-sdk-date"))?;
    map.insert(HeaderName::from_static("x-sdk-date"), date);
    let mut authorization =
        HeaderValue::from_str(&signature.authorization).map_err(|_| wrong("the access key"))?;
    authorization.set_sensitive(true);
    map.insert(header::AUTHORIZATION, authorization);
    Ok(request)
}
