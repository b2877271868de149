//! Answers and refusals, in the shapes of the service.

use axum::http::StatusCode;
use serde_json::{Value as Json, json};

/// An answer before it is written: status and JSON body, or none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Option<Json>,
}

impl Answer {
    pub(super) fn ok(body: Json) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
        }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, body: None }
    }

    /// Flat `error_code` and `error_msg`, as CSMS writes them; the gateway adds the request id.
    pub(super) fn error(status: StatusCode, code: &str, message: &str, request_id: &str) -> Self {
        let mut body = json!({"error_code": code, "error_msg": message});
        if code.starts_with("APIG.") {
            body["request_id"] = request_id.into();
        }
        Self {
            status,
            body: Some(body),
        }
    }
}

/// A call that the service refuses.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// A refusal with its documented status.
pub(super) fn refuse(status: u16, code: &'static str, message: impl Into<String>) -> Refused {
    Refused {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        code,
        message: message.into(),
    }
}
