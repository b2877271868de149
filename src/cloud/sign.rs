//! Signatures of requests: SDK-HMAC-SHA256, as in Huawei's SDKs (Go: `core/auth/signer`).
//!
//! Pure functions: same input, same signature.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{digest, hmac};

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// Everything but `A-Z a-z 0-9 - _ . ~` is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The parts of a request that are signed in addition to its body.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// As on the wire: percent-encoded, from the first `/` on.
    pub path: &'a str,
    /// Names and values before any encoding, in any order.
    pub query: &'a [(String, String)],
    /// All headers to be signed, without `X-Sdk-Date`. A name must not appear twice; names with an
    /// underscore are left out, as the SDKs do, because gateways drop them.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The headers that a signature adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Value of `X-Sdk-Date`.
    pub date: String,
    /// Value of `Authorization`.
    pub authorization: String,
}

/// Signs a request that has a JSON body or none.
pub fn sign(
    parts: &Parts<'_>,
    body: &[u8],
    access_key: &str,
    secret_key: &str,
    date: Timestamp,
) -> Signature {
    let date = date.strftime("%Y%m%dT%H%M%SZ").to_string();
    let (canonical, names) = canonical_request(parts, body, &date);
    let text = format!("{ALGORITHM}\n{date}\n{}", sha256_hex(canonical.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.as_bytes());
    let signature = HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref());
    let authorization =
        format!("{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={signature}");
    Signature {
        date,
        authorization,
    }
}

/// Percent-encodes one segment of a path, or one name or value of a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The query as it is signed and sent: sorted, encoded, empty values as `name=`.
pub fn canonical_query(query: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = query.iter().collect();
    sorted.sort();
    let pairs: Vec<String> = sorted
        .into_iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}

/// The text whose hash is signed, and the names of the signed headers.
fn canonical_request(parts: &Parts<'_>, body: &[u8], date: &str) -> (String, String) {
    let mut headers: BTreeMap<String, &str> = parts
        .headers
        .iter()
        .filter(|(name, _)| !name.contains('_'))
        .map(|(name, value)| (name.to_lowercase(), value.trim()))
        .collect();
    headers.insert("x-sdk-date".to_owned(), date);

    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let names: Vec<&str> = headers.keys().map(String::as_str).collect();
    let names = names.join(";");
    let text = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        parts.method,
        canonical_path(parts.path),
        canonical_query(parts.query),
        sha256_hex(body)
    );
    (text, names)
}

/// The path decoded once and encoded again segment by segment, with a trailing slash that the request itself
/// does not have.
fn canonical_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let segments: Vec<String> = decoded.split('/').map(encode).collect();
    let mut path = segments.join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AK: &str = "AKEXAMPLE0123456789A";
    const SK: &str = "SKexample/0123456789abcdefghijklmnopqrstu";

    fn date() -> Timestamp {
        "2024-01-02T03:04:05Z".parse().unwrap()
    }

    /// Computed with Huawei's Python SDK 3.1.219.
    #[test]
    fn a_read_with_temporary_keys_matches_the_sdk() {
        let parts = Parts {
            method: "GET",
            path: "/v1/0123456789abcdef0123456789abcdef/secrets/db_pass-1/versions/latest",
            query: &[],
            headers: &[
                ("Content-Type", "application/json"),
                ("Host", "kms.cn-north-4.myhuaweicloud.com"),
                ("X-Project-Id", "0123456789abcdef0123456789abcdef"),
                ("X-Security-Token", "TOKEN/abc+=="),
            ],
        };
        let signature = sign(&parts, b"", AK, SK, date());
        assert_eq!(signature.date, "20240102T030405Z");
        assert_eq!(
            signature.authorization,
            "SDK-HMAC-SHA256 Access=AKEXAMPLE0123456789A, \
             SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token, \
             Signature=5560c6f100127d0afd8acd9f6bfb49fa673039bf3dba51ce63d66ebb7d56a985"
        );
    }

    /// Computed with Huawei's Python SDK 3.1.219.
    #[test]
    fn a_list_with_a_query_matches_the_sdk() {
        let parts = Parts {
            method: "GET",
            path: "/v1/p/secrets",
            query: &[
                ("marker".to_owned(), "a".to_owned()),
                ("limit".to_owned(), "1".to_owned()),
            ],
            headers: &[("Host", "kms.example.test")],
        };
        let (canonical, _) = canonical_request(&parts, b"", "20240102T030405Z");
        assert_eq!(
            sha256_hex(canonical.as_bytes()),
            "a5763bb40affe19445ce7613ff48b63f089d0afeab95c243224cf4d2e0fe8543"
        );
        let signature = sign(&parts, b"", AK, SK, date());
        assert!(
            signature
                .authorization
                .ends_with("2aef8a975d4f5d5552a90964b29159f76166250de5e58a35a2aab4ad87fd98c3")
        );
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        proptest::collection::vec((".{0,6}", ".{0,6}"), 0..6)
    }

    proptest! {
        #[test]
        fn the_order_of_query_and_headers_does_not_matter(
            query in pairs(),
            values in proptest::collection::vec("[ -~]{0,8}", 4),
            turn in 0_usize..4,
        ) {
            let names = ["Host", "X-Project-Id", "b-header", "A-Header"];
            let headers: Vec<(&str, &str)> =
                names.into_iter().zip(values.iter().map(String::as_str)).collect();
            let mut turned_headers = headers.clone();
            turned_headers.rotate_left(turn);
            let mut turned_query = query.clone();
            turned_query.reverse();

            let one = Parts { method: "GET", path: "/a/b", query: &query, headers: &headers };
            let other = Parts { query: &turned_query, headers: &turned_headers, ..one };
            prop_assert_eq!(sign(&one, b"x", AK, SK, date()), sign(&other, b"x", AK, SK, date()));
        }

        #[test]
        fn an_encoded_segment_cannot_leave_its_place(segment in ".{1,20}") {
            let encoded = encode(&segment);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
            prop_assert!(encoded.bytes().all(plain));
            let back = percent_decode_str(&encoded).decode_utf8().unwrap();
            prop_assert_eq!(back.as_ref(), segment.as_str());
        }

        #[test]
        fn every_part_counts(body in proptest::collection::vec(any::<u8>(), 0..20), flip in 0_usize..20) {
            let parts = Parts { method: "PUT", path: "/a", query: &[], headers: &[] };
            let mut changed = body.clone();
            match changed.get_mut(flip) {
                Some(byte) => *byte ^= 1,
                None => changed.push(0),
            }
            prop_assert_ne!(
                sign(&parts, &body, AK, SK, date()),
                sign(&parts, &changed, AK, SK, date())
            );
        }
    }
}
