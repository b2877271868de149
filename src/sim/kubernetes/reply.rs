//! Responses of the API server.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

pub(super) type HttpReply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A failed request, returned as a `Status` object.
#[derive(Debug)]
pub(super) struct StatusError {
    code: StatusCode,
    reason: &'static str,
    message: String,
}

impl StatusError {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
        }
    }

    pub(super) fn bad(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn of_status(code: StatusCode, message: &str) -> Self {
        let reason = match code.as_u16() {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            _ => "InternalError",
        };
        Self::new(code, reason, message.to_owned())
    }

    pub(super) fn reply(self) -> HttpReply {
        let text = status(self.code, self.reason, &self.message).to_string();
        reply(self.code, text.into())
    }
}

pub(super) fn reply(code: StatusCode, text: Bytes) -> HttpReply {
    let body = Full::new(text).map_err(|never: Infallible| match never {});
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, json);
    reply
}

/// The `Status` object of an error response.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "metadata": {},
        "reason": reason, "message": message, "code": code.as_u16(),
    })
}
