//! Responses and errors in the format of the service.

use axum::http::StatusCode;
use serde_json::{Value as Json, json};

/// A response: the status and an optional JSON body.
#[derive(Debug)]
pub(super) struct ApiReply {
    pub(super) status: StatusCode,
    pub(super) body: Option<Json>,
}

impl ApiReply {
    pub(super) fn ok(body: Json) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
        }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, body: None }
    }

    /// An error with `error_code` and `error_msg`, as CSMS returns it. KMS puts them into an object `error`.
    /// Errors of the API gateway (`APIG.*`) also contain the request ID.
    pub(super) fn error(status: StatusCode, code: &str, message: &str, request_id: &str) -> Self {
        let mut body = json!({"error_code": code, "error_msg": message});
        if code.starts_with("APIG.") {
            body["request_id"] = request_id.into();
        }
        if code.starts_with("KMS.") {
            body = json!({ "error": body });
        }
        Self {
            status,
            body: Some(body),
        }
    }
}

/// An error that the service returns for a call.
#[derive(Debug)]
pub(super) struct ApiRejection {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Returns an error with its documented status.
pub(super) fn reject(status: u16, code: &'static str, message: impl Into<String>) -> ApiRejection {
    ApiRejection {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        code,
        message: message.into(),
    }
}
