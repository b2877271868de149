//! Builds the canonical request from the request as received.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// All characters except the unreserved ones of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Returns the text whose hash is signed. `headers` are names and values in the order of
/// `SignedHeaders`.
pub(super) fn canonical_request(
    method: &str,
    raw_path: &str,
    raw_query: &str,
    headers: &[(&str, &str)],
    payload_hash: &str,
) -> String {
    let mut text = format!(
        "{method}\n{}\n{}\n",
        canonical_path(raw_path),
        canonical_query(raw_query)
    );
    for (name, value) in headers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}:{}", value.trim());
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let _ = write!(text, "\n{}\n{payload_hash}", names.join(";"));
    text
}

/// Decodes the path once, encodes each segment and appends a slash if missing.
fn canonical_path(raw: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    let mut path = decoded
        .split(|byte| *byte == b'/')
        .map(encode)
        .collect::<Vec<_>>()
        .join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// Sorts the parameters by decoded key, then by value. `a` and `a=` are equivalent.
fn canonical_query(raw: &str) -> String {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = raw
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_query(key), decode_query(value))
        })
        .collect();
    pairs.sort();
    pairs
        .iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Percent-decodes a query component, in which `+` means a space.
fn decode_query(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn query_is_sorted_and_empty_values_keep_their_equals_sign() {
        assert_eq!(canonical_query("b=2&a&b=1&c=%2F+x"), "a=&b=1&b=2&c=%2F%20x");
        assert_eq!(canonical_query(""), "");
    }

    #[test]
    fn path_is_encoded_strictly_and_ends_with_a_slash() {
        assert_eq!(canonical_path("/a*b/(c)/%7e"), "/a%2Ab/%28c%29/~/");
        assert_eq!(canonical_path("/"), "/");
    }

    proptest! {
        #[test]
        fn escaping_on_the_wire_does_not_matter(segment in "[^/%]{1,20}") {
            let everything = percent_encode(segment.as_bytes(), NON_ALPHANUMERIC).to_string();
            let strict = encode(segment.as_bytes());
            prop_assert_eq!(canonical_path(&format!("/{everything}")), canonical_path(&format!("/{strict}")));
        }

        #[test]
        fn order_of_parameters_does_not_matter(mut pairs in prop::collection::vec(("[a-c]{0,2}", "[a-z ]{0,3}"), 0..6)) {
            let wire = |pairs: &[(String, String)]| pairs.iter()
                .map(|(k, v)| format!("{k}={}", v.replace(' ', "%20")))
                .collect::<Vec<_>>().join("&");
            let one = canonical_query(&wire(&pairs));
            pairs.reverse();
            prop_assert_eq!(one, canonical_query(&wire(&pairs)));
        }
    }
}
