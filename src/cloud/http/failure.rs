//! What hyper's errors mean for a call.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;

use crate::cloud::answer::{Failure, one_line};
use crate::cloud::error::Kind;
use crate::cloud::retry::Again;

/// A request that brought no answer.
pub(super) fn sending(error: legacy::Error) -> Failure {
    let text = chain(&error);
    if error.is_connect() {
        if find::<rustls::Error>(&error).is_some_and(is_certificate) {
            let text = format!(
                "the server's certificate is not trusted: {text}; set --ca-bundle to the authority that signed it"
            );
            return Failure::local(Kind::Connect, Again::Never, text);
        }
        return Failure::local(
            Kind::Connect,
            Again::Always,
            format!("no connection: {text}"),
        );
    }
    match find::<hyper::Error>(&error) {
        // the request was still in this process
        Some(inner) if inner.is_canceled() => {
            Failure::local(Kind::Connect, Again::Always, format!("not sent: {text}"))
        }
        Some(inner) if inner.is_parse() => Failure::local(
            Kind::Malformed,
            Again::IfIdempotent,
            format!("the answer is not HTTP: {text}"),
        ),
        _ => Failure::local(
            Kind::Connect,
            Again::IfIdempotent,
            format!("the connection broke: {text}"),
        ),
    }
}

fn is_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

/// The text of an error and of all that caused it, without repeats.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
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

/// The cause. What an `io::Error` wraps is not its source, but what that one's source is.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}
