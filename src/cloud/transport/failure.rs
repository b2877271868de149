//! Classifies hyper's errors.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;

use crate::cloud::error::ErrorKind;
use crate::cloud::response::AttemptError;
use crate::cloud::retry::Retryability;
use crate::util::text::one_line;

/// The error of a request that got no response.
pub(in crate::cloud) fn sending(error: legacy::Error) -> AttemptError {
    let text = chain(&error);
    if error.is_connect() {
        if find::<rustls::Error>(&error).is_some_and(is_certificate) {
            let text = format!(
                "the server's certificate is not trusted: {text}; set --ca-bundle to a file with the certificate of its CA"
            );
            return AttemptError::local(ErrorKind::Connect, Retryability::Never, text);
        }
        return AttemptError::local(
            ErrorKind::Connect,
            Retryability::Always,
            format!("no connection: {text}"),
        );
    }
    match find::<hyper::Error>(&error) {
        // The request was still in this process.
        Some(inner) if inner.is_canceled() => AttemptError::local(
            ErrorKind::Connect,
            Retryability::Always,
            format!("not sent: {text}"),
        ),
        Some(inner) if inner.is_parse() => AttemptError::local(
            ErrorKind::Malformed,
            Retryability::IfIdempotent,
            format!("the response is not HTTP: {text}"),
        ),
        _ => AttemptError::local(
            ErrorKind::Connect,
            Retryability::IfIdempotent,
            format!("the connection broke: {text}"),
        ),
    }
}

fn is_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

/// The texts of an error and of its causes, without repetitions.
pub(in crate::cloud) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = below(error);
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = below(error);
    }
    one_line(&text, 300)
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = below(error);
    }
    None
}

/// The cause. The source of an `io::Error` skips the error that it wraps.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}
