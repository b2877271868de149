use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const AK: &str = "AKEXAMPLE0123456789A";
const SK: &str = "SKexample/0123456789abcdefghijklmnopqrstu";
const V1_PATH: &str = "/v1/0123456789abcdef0123456789abcdef/secrets/db_pass-1/versions/latest";
const V1_SIGNATURE: &str = "5560c6f100127d0afd8acd9f6bfb49fa673039bf3dba51ce63d66ebb7d56a985";
const V4_SIGNATURE: &str = "2aef8a975d4f5d5552a90964b29159f76166250de5e58a35a2aab4ad87fd98c3";

fn verifier() -> SignatureVerifier {
    let mut account = Account::demo();
    account.access_key = AK.to_owned();
    account.secret_key = SK.to_owned().into();
    SignatureVerifier::new(&[account], true)
}

fn now() -> Timestamp {
    "2024-01-02T03:04:05Z".parse().unwrap()
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

fn v1_headers() -> HeaderMap {
    let authorization = format!(
        "SDK-HMAC-SHA256 Access={AK}, SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token, Signature={V1_SIGNATURE}"
    );
    headers(&[
        ("authorization", &authorization),
        ("content-type", "application/json"),
        ("host", "kms.cn-north-4.myhuaweicloud.com"),
        ("x-project-id", "0123456789abcdef0123456789abcdef"),
        ("x-sdk-date", "20240102T030405Z"),
        ("x-security-token", "TOKEN/abc+=="),
    ])
}

fn v4_headers() -> HeaderMap {
    let authorization = format!(
        "SDK-HMAC-SHA256 Access={AK}, SignedHeaders=host;x-sdk-date, Signature={V4_SIGNATURE}"
    );
    headers(&[
        ("authorization", &authorization),
        ("host", "kms.example.test"),
        ("x-sdk-date", "20240102T030405Z"),
    ])
}

fn v4<'a>(headers: &'a HeaderMap, query: &'a str, body: &'a [u8]) -> ReceivedRequest<'a> {
    ReceivedRequest {
        method: "GET",
        path: "/v1/p/secrets",
        query,
        headers,
        body,
    }
}

#[test]
fn signatures_of_the_official_sdk_are_accepted() {
    let headers = v1_headers();
    let request = ReceivedRequest {
        method: "GET",
        path: V1_PATH,
        query: "",
        headers: &headers,
        body: b"",
    };
    assert_eq!(verifier().verify(&request, now()).unwrap().access_key, AK);

    let headers = v4_headers();
    for query in ["limit=1&marker=a", "marker=a&limit=1", "limit=1&marker=%61"] {
        assert!(
            verifier().verify(&v4(&headers, query, b""), now()).is_ok(),
            "{query}"
        );
    }
}

#[test]
fn a_changed_body_query_date_or_key_is_rejected() {
    let good = v4_headers();
    let check = |headers: &HeaderMap, query: &str, body: &[u8], at: Timestamp| {
        verifier()
            .verify(&v4(headers, query, body), at)
            .unwrap_err()
    };
    let query = "limit=1&marker=a";
    assert_eq!(check(&good, query, b"x", now()), SignatureError::Signature);
    assert_eq!(
        check(&good, "limit=2&marker=a", b"", now()),
        SignatureError::Signature
    );
    for minutes in [-16, 16] {
        let at = now() + SignedDuration::from_mins(minutes);
        assert_eq!(check(&good, query, b"", at), SignatureError::Date);
    }
    let mut other = good.clone();
    let changed = good["authorization"]
        .to_str()
        .unwrap()
        .replace(AK, "NOBODY");
    other.insert("authorization", changed.parse().unwrap());
    assert_eq!(
        check(&other, query, b"", now()),
        SignatureError::UnknownKey("NOBODY".to_owned())
    );
    assert_eq!(
        check(&HeaderMap::new(), query, b"", now()),
        SignatureError::Unsigned
    );
}

#[test]
fn a_clock_skew_of_fifteen_minutes_is_accepted() {
    let headers = v4_headers();
    let at = now() + SignedDuration::from_mins(15);
    assert!(
        verifier()
            .verify(&v4(&headers, "limit=1&marker=a", b""), at)
            .is_ok()
    );
}

#[test]
fn five_consecutive_failures_lock_the_key_for_five_minutes() {
    let mut verifier = verifier();
    let headers = v4_headers();
    for _ in 0..MAX_FAILURES {
        let error = verifier.verify(&v4(&headers, "", b""), now()).unwrap_err();
        assert_eq!(error, SignatureError::Signature);
    }
    let good = v4(&headers, "limit=1&marker=a", b"");
    assert_eq!(
        verifier.verify(&good, now()).unwrap_err(),
        SignatureError::Locked
    );
    assert!(verifier.verify(&good, now() + LOCK_DURATION).is_ok());
}

proptest! {
    #[test]
    fn no_other_signature_is_accepted(signature in "[0-9a-f]{64}") {
        prop_assume!(signature != V4_SIGNATURE);
        let mut headers = v4_headers();
        let changed = headers["authorization"].to_str().unwrap().replace(V4_SIGNATURE, &signature);
        headers.insert("authorization", changed.parse().unwrap());
        prop_assert!(verifier().verify(&v4(&headers, "limit=1&marker=a", b""), now()).is_err());
    }

    #[test]
    fn garbage_in_the_header_is_rejected(garbage in "[ -~]{0,80}") {
        let mut headers = v4_headers();
        headers.insert("authorization", garbage.parse().unwrap());
        prop_assert!(verifier().verify(&v4(&headers, "limit=1&marker=a", b""), now()).is_err());
    }
}
