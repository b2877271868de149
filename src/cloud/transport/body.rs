//! Bodies of responses.

use http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::cloud::error::ErrorKind;
use crate::cloud::response::AttemptError;
use crate::cloud::retry::Retryability;
use crate::util::json::describe;
use crate::util::text::causes;

/// Longest response that is read, in bytes. A value has at most 32 KiB, a page of a list 50 items.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// What is read of the body of an error, in bytes. The service's own are shorter than 1 KiB.
const MAX_ERROR_BYTES: usize = 16 << 10;

/// Parses JSON; the error quotes none of it.
pub(in crate::cloud) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| describe(&error, "fields are missing or of the wrong type"))
}

/// Reads the whole body into memory that is zeroized, and leaves no copies behind as it grows. Of an error,
/// reads only the beginning.
pub(in crate::cloud) async fn read(
    status: StatusCode,
    mut body: hyper::body::Incoming,
) -> Result<Zeroizing<Vec<u8>>, AttemptError> {
    let broken =
        |text: String| AttemptError::local(ErrorKind::Malformed, Retryability::IfIdempotent, text);
    let too_long = || {
        let text = format!("the response is longer than {MAX_RESPONSE_BYTES} bytes");
        AttemptError::local(ErrorKind::Malformed, Retryability::Never, text)
    };
    let expected = hyper::body::Body::size_hint(&body).lower();
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    let limit = if status.is_success() {
        MAX_RESPONSE_BYTES
    } else {
        MAX_ERROR_BYTES
    };
    if expected > limit && status.is_success() {
        return Err(too_long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.clamp(4096, limit)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            broken(format!(
                "the response was cut off after {} bytes: {}",
                bytes.len(),
                causes(&error)
            ))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = bytes.len() + data.len();
        if needed > limit && status.is_success() {
            return Err(too_long());
        }
        if needed > limit {
            let left = limit - bytes.len();
            bytes.extend_from_slice(&data[..left]);
            break;
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
