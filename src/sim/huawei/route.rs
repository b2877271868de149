//! Maps requests to operations of the cloud's API.

use percent_encoding::percent_decode_str;

/// Whose operation it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Service {
    Csms,
    Kms,
    /// IAM and the metadata service.
    #[default]
    Other,
}

/// An operation, by its name in Huawei's API reference, and the parameters of its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ApiRoute {
    pub(super) service: Service,
    pub(super) operation: &'static str,
    pub(super) project: Option<String>,
    pub(super) secret: Option<String>,
    /// Version ID or stage name.
    pub(super) item: Option<String>,
    /// ID of the KMS key, from the body.
    pub(super) key: Option<String>,
}

impl ApiRoute {
    /// Reads what only the body says about the operation.
    pub(super) fn read_body(&mut self, body: &[u8]) {
        #[derive(serde::Deserialize)]
        struct KeyId {
            key_id: String,
        }
        if self.service == Service::Kms {
            let found = serde_json::from_slice(body).ok();
            self.key = found.map(|found: KeyId| found.key_id);
        }
    }
}

/// Returns the operation for a method and a path, or `None` if the API has none.
pub(super) fn route(method: &str, raw_path: &str) -> Option<ApiRoute> {
    let path: Vec<String> = raw_path
        .trim_matches('/')
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8().map(Into::into))
        .collect::<Result<_, _>>()
        .ok()?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let plain = |operation| ApiRoute {
        operation,
        ..ApiRoute::default()
    };
    let (project, rest) = match path.as_slice() {
        ["v3", "projects"] if method == "GET" => return Some(plain("KeystoneListProjects")),
        ["v1.0", project, "kms", operation] if method == "POST" => {
            return Some(ApiRoute {
                service: Service::Kms,
                project: Some((*project).to_owned()),
                ..plain(super::kms::operation(operation)?)
            });
        }
        ["v1", project, "secrets", rest @ ..] => (*project, rest),
        _ => return None,
    };
    let (operation, secret, item) = match (method, rest) {
        ("POST", []) => ("CreateSecret", None, None),
        ("GET", []) => ("ListSecrets", None, None),
        ("GET", [name]) => ("ShowSecret", Some(name), None),
        ("PUT", [name]) => ("UpdateSecret", Some(name), None),
        ("DELETE", [name]) => ("DeleteSecret", Some(name), None),
        ("POST", [name, "versions"]) => ("CreateSecretVersion", Some(name), None),
        ("GET", [name, "versions"]) => ("ListSecretVersions", Some(name), None),
        ("GET", [name, "versions", id]) => ("ShowSecretVersion", Some(name), Some(id)),
        ("GET", [name, "stages", stage]) => ("ShowSecretStage", Some(name), Some(stage)),
        ("PUT", [name, "stages", stage]) => ("UpdateSecretStage", Some(name), Some(stage)),
        ("DELETE", [name, "stages", stage]) => ("DeleteSecretStage", Some(name), Some(stage)),
        ("POST", [name, "scheduled-deleted-tasks", "create"]) => {
            ("DeleteSecretForSchedule", Some(name), None)
        }
        ("POST", [name, "scheduled-deleted-tasks", "cancel"]) => {
            ("RestoreSecret", Some(name), None)
        }
        _ => return None,
    };
    Some(ApiRoute {
        service: Service::Csms,
        operation,
        project: Some(project.to_owned()),
        secret: secret.map(|name| (*name).to_owned()),
        item: item.map(|item| (*item).to_owned()),
        key: None,
    })
}
