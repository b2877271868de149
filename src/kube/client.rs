//! The connection to the API server.

use std::path::Path;
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::runtime::watcher;
use tokio::time::{Instant, timeout_at};

use crate::util::text::{causes, io_reason, one_line, without_os_error};

/// Limit of one request to the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum length of a reason of the API server, in characters.
const MAX_REASON: usize = 300;

/// A kind of request, as RBAC names it, and its object.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The verb, such as `get`.
    pub verb: &'static str,
    /// The resource, such as `serviceaccounts`.
    pub resource: &'static str,
    /// Kind, namespace and name, such as `ServiceAccount shop/app`.
    pub what: &'a str,
}

/// Why a request to the API server failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubeError {
    /// The object does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The API server denied access.
    #[error(
        "the API server denied access to {what} ({reason}): the provider's {role} must allow {verb} on \
         {resource}",
        role = if *resource == "leases" { "Role" } else { "ClusterRole" }
    )]
    Forbidden {
        /// Kind, namespace and name.
        what: String,
        /// The verb that was denied.
        verb: &'static str,
        /// The resource that was denied.
        resource: &'static str,
        /// The API server's reason.
        reason: String,
    },
    /// The API server does not accept the provider's token.
    #[error(
        "the API server did not accept the provider's credentials for {what} ({reason}): check the provider's \
         ServiceAccount and its token, or the kubeconfig file"
    )]
    Unauthorized {
        /// Kind, namespace and name.
        what: String,
        /// The API server's reason.
        reason: String,
    },
    /// No response, or not a usable one.
    #[error("could not {verb} {what} {side} the API server: {reason}")]
    Failed {
        /// What was tried, such as `read`.
        verb: &'static str,
        /// Kind, namespace and name.
        what: String,
        /// `from` for reads, `at` for writes.
        side: &'static str,
        /// Why.
        reason: String,
    },
}

impl KubeError {
    /// The error of a request.
    pub fn new(access: Access<'_>, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(access, status),
            other => Self::failed(access, &reason(other)),
        }
    }

    /// The error of a watch, which begins with a list.
    pub fn of_watch(resource: &'static str, what: &str, error: &watcher::Error) -> Self {
        let list = Access {
            verb: "list",
            resource,
            what,
        };
        let watch = Access {
            verb: "watch",
            ..list
        };
        match error {
            watcher::Error::InitialListFailed(error) => Self::new(list, error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                Self::new(watch, error)
            }
            watcher::Error::WatchError(status) => Self::of_status(watch, status),
            watcher::Error::NoResourceVersion => {
                Self::failed(watch, "the response has no resource version")
            }
        }
    }

    /// No response, for a reason of this process.
    pub fn failed(access: Access<'_>, reason: &str) -> Self {
        let (verb, side) = match access.verb {
            "get" => ("read", "from"),
            verb @ ("list" | "watch") => (verb, "from"),
            verb => (verb, "at"),
        };
        Self::Failed {
            verb,
            what: access.what.to_owned(),
            side,
            reason: one_line(reason, MAX_REASON),
        }
    }

    fn of_status(access: Access<'_>, status: &Status) -> Self {
        let what = access.what.to_owned();
        let reason = one_line(&status.reason, MAX_REASON);
        match status.code {
            404 if matches!(access.verb, "list" | "watch") => Self::failed(
                access,
                "404 NotFound: its CustomResourceDefinition is not installed",
            ),
            404 => Self::NotFound(what),
            401 => Self::Unauthorized { what, reason },
            403 => Self::Forbidden {
                what,
                verb: access.verb,
                resource: access.resource,
                reason,
            },
            code => Self::failed(access, &format!("{code} {reason}")),
        }
    }
}

/// What went wrong, without the names that the library has for it.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            "the response does not match the API".to_owned()
        }
        kube::Error::ReadEvents(error) => format!("the connection broke: {}", io_reason(error)),
        kube::Error::Service(error) => causes(&**error),
        kube::Error::HyperError(error) => causes(error),
        kube::Error::Auth(error) => format!("no credentials: {}", causes(error)),
        other => causes(other),
    }
}

/// Awaits a response of the API server until `deadline`, at most for [`REQUEST_TIMEOUT`].
pub(super) async fn request<T>(
    access: Access<'_>,
    deadline: Instant,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubeError> {
    let limit = deadline.min(Instant::now() + REQUEST_TIMEOUT);
    match timeout_at(limit, call).await {
        Ok(response) => response.map_err(|error| KubeError::new(access, &error)),
        Err(_) => Err(KubeError::failed(access, "timed out")),
    }
}

/// The configuration of the client: from `kubeconfig` if it is set, else from the pod's ServiceAccount.
///
/// # Errors
/// Why it cannot be loaded, for the user.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |error: KubeconfigError| {
                format!(
                    "kubeconfig {}: {}",
                    path.display(),
                    kubeconfig_reason(&error)
                )
            };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(wrong)?
        }
        None => Config::incluster().map_err(|error| {
            let why = without_os_error(&error.to_string());
            format!("not running in a pod: {}", one_line(&why, MAX_REASON))
        })?,
    };
    // kube retries for many minutes by default; a Mount has less time, and kubelet retries it.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(3));
    Ok(config)
}

/// Why a kubeconfig file cannot be used.
fn kubeconfig_reason(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => format!("cannot be read: {}", io_reason(error)),
        KubeconfigError::Parse(_) => {
            "it is not a kubeconfig file: expected YAML with clusters, users and contexts"
                .to_owned()
        }
        other => causes(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str) -> Box<Status> {
        Box::new(Status {
            code,
            reason: reason.to_owned(),
            ..Status::default()
        })
    }

    #[test]
    fn a_denied_request_names_its_verb_and_resource() {
        for (verb, resource) in [
            ("get", "serviceaccounts"),
            ("create", "events"),
            ("update", "leases"),
            ("patch", "secretrevisions/status"),
        ] {
            let access = Access {
                verb,
                resource,
                what: "X shop/app",
            };
            let error = KubeError::new(access, &kube::Error::Api(status(403, "Forbidden")));
            let expected = format!("must allow {verb} on {resource}");
            assert!(error.to_string().contains(&expected), "{error}");
            assert!(!error.to_string().contains("get, list"), "{error}");
            let error = KubeError::new(access, &kube::Error::Api(status(401, "Unauthorized")));
            assert!(error.to_string().contains("credentials"), "{error}");
            assert!(!error.to_string().contains("ClusterRole"), "{error}");
        }
        let list = watcher::Error::InitialListFailed(kube::Error::Api(status(403, "Forbidden")));
        let watch = watcher::Error::WatchError(status(403, "Forbidden"));
        for (error, verb) in [(list, "list"), (watch, "watch")] {
            let error = KubeError::of_watch("pods", "this node's pods", &error).to_string();
            assert!(
                error.contains(&format!("must allow {verb} on pods")),
                "{error}"
            );
        }
    }

    #[test]
    fn failures_do_not_speak_of_libraries() {
        let access = Access {
            verb: "get",
            resource: "serviceaccounts",
            what: "ServiceAccount shop/app",
        };
        let refused = std::io::Error::from_raw_os_error(111);
        let parse = serde_json::from_str::<u32>("\"x\"").unwrap_err();
        for (error, expected) in [
            (
                kube::Error::Service(Box::new(refused)),
                "from the API server: Connection refused",
            ),
            (kube::Error::SerdeError(parse), "does not match the API"),
            (
                kube::Error::Api(status(500, "InternalError")),
                "500 InternalError",
            ),
            (
                kube::Error::Api(status(500, &"x\u{1b}".repeat(9000))),
                "500 x",
            ),
        ] {
            let shown = KubeError::new(access, &error).to_string();
            assert!(
                shown.starts_with("could not read ServiceAccount shop/app"),
                "{shown}"
            );
            assert!(shown.contains(expected) && shown.len() < 1024, "{shown}");
            for phrase in ["os error", "Error:", "invalid type", "\u{1b}"] {
                assert!(!shown.contains(phrase), "{shown}");
            }
        }
    }
}
