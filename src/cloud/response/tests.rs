//! What responses mean, by example.

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};

use super::*;

fn now() -> Timestamp {
    "2024-01-02T03:04:05Z".parse().unwrap()
}

fn answer(status: u16, headers: &[(header::HeaderName, &str)], body: &str) -> ApiResponse {
    ApiResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect(),
        body: Zeroizing::new(body.as_bytes().to_vec()),
    }
}

fn refused(status: u16, code: &str, text: &str) -> AttemptError {
    let body = serde_json::json!({ "error_code": code, "error_msg": text }).to_string();
    answer(status, &[], &body).rejection(now())
}

#[test]
fn codes_statuses_and_texts_map_to_kinds() {
    use Retryability::{Always, IfIdempotent, Never};
    let cases = [
        (400, "CSMS.0002", "bad", ErrorKind::Invalid, Never),
        (
            400,
            "CSMS.0106",
            "no such secret",
            ErrorKind::NotFound,
            Never,
        ),
        (
            404,
            "CSMS.0106",
            "no such secret",
            ErrorKind::NotFound,
            Never,
        ),
        (
            400,
            "CSMS.0005",
            "no such resource",
            ErrorKind::NotFound,
            Never,
        ),
        (
            404,
            "CSMS.0205",
            "no such version",
            ErrorKind::NotFound,
            Never,
        ),
        (
            400,
            "CSMS.0103",
            "to be deleted",
            ErrorKind::Disabled,
            Never,
        ),
        (403, "CSMS.0109", "not enabled", ErrorKind::Disabled, Never),
        (400, "CSMS.0401", "no key", ErrorKind::Denied, Never),
        (403, "CSMS.0302", "no right", ErrorKind::Denied, Never),
        (409, "CSMS.0101", "exists", ErrorKind::Conflict, Never),
        (
            404,
            "APIG.0101",
            "no such API",
            ErrorKind::Configuration,
            Never,
        ),
        (
            401,
            "APIG.0301",
            "verify aksk signature fail",
            ErrorKind::Denied,
            Never,
        ),
        (
            401,
            "APIGW.0301",
            "token expires",
            ErrorKind::CredentialsExpired,
            Never,
        ),
        (
            401,
            "APIG.0307",
            "update it",
            ErrorKind::CredentialsExpired,
            Never,
        ),
        (429, "APIG.0308", "slow down", ErrorKind::Throttled, Always),
        (429, "", "", ErrorKind::Throttled, Always),
        (
            400,
            "X",
            "The throttling threshold has been reached: policy",
            ErrorKind::Throttled,
            Always,
        ),
        (500, "CSMS.0001", "oops", ErrorKind::Server, IfIdempotent),
        (502, "APIG.0201", "backend", ErrorKind::Server, IfIdempotent),
        (503, "APIG.0613", "IAM", ErrorKind::Server, Always),
        (504, "APIG.0201", "backend", ErrorKind::Server, IfIdempotent),
        (501, "", "", ErrorKind::Server, Never),
        (500, "CSMS.0106", "oops", ErrorKind::Server, IfIdempotent),
        (404, "CSMS.0207", "quota", ErrorKind::Server, Never),
        (407, "", "", ErrorKind::Configuration, Never),
        (408, "", "", ErrorKind::Timeout, Always),
        (302, "", "", ErrorKind::Malformed, Never),
    ];
    for (status, code, text, kind, again) in cases {
        let failure = refused(status, code, text);
        assert_eq!(
            (failure.kind, failure.retryability),
            (kind, again),
            "{status} {code} {text}"
        );
        assert_eq!(failure.status, Some(status));
    }
}

#[test]
fn every_shape_of_error_body_is_read() {
    let bodies = [
        r#"{"error_code":"C.1","error_msg":"m"}"#,
        r#"{"error":{"error_code":"C.1","error_msg":"m"}}"#,
        r#"{"errorCode":"C.1","errorMsg":"m"}"#,
        r#"{"x":1,"error":{"code":"C.1","message":"m","title":"T"}}"#,
        r#"{"error_msg":"m","error_code":"C.1","request_id":"r"}"#,
    ];
    for body in bodies {
        let failure = answer(400, &[], body).rejection(now());
        assert_eq!(failure.code.as_deref(), Some("C.1"), "{body}");
        assert_eq!(failure.message, "m", "{body}");
        let id = body.contains("request_id").then_some("r");
        assert_eq!(failure.request_id.as_deref(), id);
    }
    let bare = answer(404, &[], r#"{"error_code":"CSMS.0106"}"#).rejection(now());
    assert_eq!(bare.kind, ErrorKind::NotFound);
    let number = answer(401, &[], r#"{"error":{"code":401,"message":"m"}}"#).rejection(now());
    assert_eq!(number.code.as_deref(), Some("401"));
}

#[test]
fn an_unparsable_body_is_not_shown() {
    for body in [
        "<html>hunter2</html>",
        r#"{"error_code":1"#,
        r#"["hunter2"]"#,
        "",
    ] {
        let failure = answer(502, &[(CONTENT_TYPE, "text/html")], body).rejection(now());
        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        let shape = format!("{} bytes of text/html", body.len());
        assert!(failure.message.contains(&shape), "{}", failure.message);
    }
    let deep = "{\"a\":".repeat(200);
    assert_eq!(answer(500, &[], &deep).rejection(now()).code, None);
}

#[test]
fn messages_are_one_line_of_300_characters() {
    let failure = refused(400, "C.1\nC.2", &"ü\n\u{1b}[31m\u{2028}x ".repeat(200));
    assert_eq!(failure.message.chars().count(), 300);
    assert!(
        !failure
            .message
            .contains(|c: char| c.is_control() || c == '\u{2028}')
    );
    assert_eq!(failure.code.as_deref(), Some("C.1 C.2"));
}

#[test]
fn clock_skew_is_detected_from_the_date_header() {
    let body =
        r#"{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information"}"#;
    let at = |date| answer(401, &[(DATE, date)], body).rejection(now());

    let behind = at("Tue, 02 Jan 2024 03:30:00 GMT");
    assert_eq!(behind.kind, ErrorKind::ClockSkew);
    assert!(
        behind.message.contains("25 min behind"),
        "{}",
        behind.message
    );
    let ahead = at("Tue, 02 Jan 2024 02:04:05 GMT");
    assert!(
        ahead.message.contains("60 min ahead of"),
        "{}",
        ahead.message
    );
    assert_eq!(at("Tue, 02 Jan 2024 03:19:05 GMT").kind, ErrorKind::Denied);
}

#[test]
fn known_errors_say_what_to_do() {
    let cases = [
        (
            401,
            "APIGW.0301",
            "current ip:10.0.0.1 refused",
            "access control",
        ),
        (
            401,
            "APIG.0301",
            "Get secretKey failed,ak:A,err:ak not exist",
            "does not exist",
        ),
        (
            401,
            "APIG.0301",
            "AK access failed to reach the limit,forbidden",
            "5 minutes",
        ),
        (404, "APIG.0101", "x", "--csms-endpoint"),
    ];
    for (status, code, text, expected) in cases {
        let failure = refused(status, code, text);
        assert!(failure.message.starts_with(text), "{}", failure.message);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
}

#[test]
fn retry_after_and_request_id_are_read_from_the_headers() {
    let id = header::HeaderName::from_static("x-request-id");
    let failure = answer(429, &[(RETRY_AFTER, "3"), (id, "abc")], "").rejection(now());
    assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
    assert_eq!(failure.request_id.as_deref(), Some("abc"));
    let trace = header::HeaderName::from_static("x-iam-trace-id");
    let failure = answer(500, &[(trace, "t1")], "").rejection(now());
    assert_eq!(failure.request_id.as_deref(), Some("t1"));
}
