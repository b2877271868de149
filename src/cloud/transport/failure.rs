//! Classifies hyper's errors.

use std::error::Error;

use hyper_util::client::legacy;
use rustls::CertificateError;

use super::proxy::ProxyError;
use crate::cloud::error::ErrorKind;
use crate::cloud::response::AttemptError;
use crate::cloud::retry::Retryability;
use crate::util::text::{cause, causes};

/// The error of a request that got no response.
pub(in crate::cloud) fn sending(error: legacy::Error) -> AttemptError {
    let text = causes(&error);
    if error.is_connect() {
        if let Some(proxy) = find::<ProxyError>(&error)
            && !proxy.is_transient()
        {
            return AttemptError::local(ErrorKind::Connect, Retryability::Never, text);
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = find::<rustls::Error>(&error) {
            let (reason, advice) = certificate(why);
            let through = find::<ProxyError>(&error).map(|proxy| format!(" ({})", proxy.route()));
            let text = format!(
                "the server's certificate is not trusted: {reason}{}; {advice}",
                through.unwrap_or_default()
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

/// What is wrong with a certificate, and what to do.
fn certificate(error: &CertificateError) -> (String, &'static str) {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "it has expired".to_owned(),
            "renew it, and check the clock of this machine",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "it is not valid yet".to_owned(),
            "check the clock of this machine",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "it is for another host".to_owned(),
            "check the endpoint's host name",
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "no known certificate authority signed it".to_owned(),
            CA_BUNDLE,
        ),
        CertificateError::Other(other) => (causes(other), CA_BUNDLE),
        other => (
            causes(&rustls::Error::InvalidCertificate(other.clone())),
            CA_BUNDLE,
        ),
    }
}

const CA_BUNDLE: &str = "set --ca-bundle to a file with the certificate of its CA";

/// The cause of type `T`.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}
