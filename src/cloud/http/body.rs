//! Bodies of answers.

use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::failure;
use crate::cloud::answer::Failure;
use crate::cloud::error::Kind;
use crate::cloud::retry::Again;

/// Longest answer that is read. A value has at most 32 KiB, a page of a list 50 items.
const ANSWER_LIMIT: usize = 1 << 20;

/// Reads JSON, with an error that quotes nothing of it.
pub(in crate::cloud) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "fields are missing or of the wrong type",
            serde_json::error::Category::Eof => "the JSON is cut off",
            _ => "not JSON",
        };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })
}

/// The whole body, in memory that is wiped; it grows without leaving copies behind.
pub(super) async fn read(mut body: hyper::body::Incoming) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let broken = |text: String| Failure::local(Kind::Malformed, Again::IfIdempotent, text);
    let too_long = || {
        let text = format!("the answer is longer than {ANSWER_LIMIT} bytes");
        Failure::local(Kind::Malformed, Again::Never, text)
    };
    let expected = hyper::body::Body::size_hint(&body).lower();
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    if expected > ANSWER_LIMIT {
        return Err(too_long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.max(4096)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            broken(format!(
                "the answer broke off after {} bytes: {}",
                bytes.len(),
                failure::chain(&error)
            ))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = bytes.len() + data.len();
        if needed > ANSWER_LIMIT {
            return Err(too_long());
        }
        if needed > bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
