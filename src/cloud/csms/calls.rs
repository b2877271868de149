//! The client of CSMS, one method per operation.

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::request::{body, check_name, check_version};
use super::types::{NewSecret, Secret, SecretValue, SecretVersion, Stage, VersionMetadata};
use super::value::VersionBody;
use crate::cloud::call::{Call, Signer};
use crate::cloud::client::{Caller, Cloud};
use crate::cloud::error::{ApiError, ErrorKind};
use crate::cloud::transport::body::json as parse;
use crate::util::json::null_as_default;
use crate::util::secret_bytes::SecretBytes;

/// CSMS keeps at most 20 versions and 12 stages of a secret and 200 secrets of a user, so a list with more
/// pages than this is endless.
const MAX_PAGES: usize = 100;

#[derive(Deserialize)]
struct One<T> {
    #[serde(
        alias = "secret",
        alias = "version",
        alias = "stage",
        alias = "version_metadata"
    )]
    item: T,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(
        alias = "secrets",
        alias = "version_metadatas",
        bound(deserialize = "T: Deserialize<'de>"),
        deserialize_with = "null_as_default"
    )]
    items: Vec<T>,
    #[serde(default)]
    page_info: Option<PageInfo>,
}

#[derive(Deserialize)]
struct PageInfo {
    #[serde(default)]
    next_marker: Option<String>,
}

/// An operation's part of a [`Call`].
struct Operation<'a> {
    name: &'static str,
    method: Method,
    path: &'a [&'a str],
    query: Vec<(String, String)>,
    body: Option<SecretBytes>,
}

impl<'a> Operation<'a> {
    fn new(name: &'static str, method: Method, path: &'a [&'a str]) -> Self {
        Self {
            name,
            method,
            path,
            query: Vec::new(),
            body: None,
        }
    }
}

/// Checks that a version is one of the secret that was asked for.
fn check_metadata(metadata: &VersionMetadata, secret: &str) -> Result<(), String> {
    check_version_id(&metadata.id)?;
    // Older services leave the name out.
    if !metadata.secret_name.is_empty() && metadata.secret_name != secret {
        return Err("it is about another secret".to_owned());
    }
    Ok(())
}

/// Version IDs are `v` and up to ten digits. Source: API reference of CSMS.
fn check_version_id(id: &str) -> Result<(), String> {
    let digits = id.strip_prefix('v').unwrap_or_default();
    if (1..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    Err("a version ID is not v and up to ten digits".to_owned())
}

/// The client of CSMS. Every call ends by its `deadline`, retries included.
#[derive(Clone, Debug)]
pub struct Csms(Cloud);

impl Csms {
    /// CSMS through `cloud`, within its rate limit.
    pub fn new(cloud: Cloud) -> Self {
        Self(cloud)
    }

    /// Creates a secret with its first version, `v1`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the name exists; [`ErrorKind::Invalid`] for a bad name or a value over
    /// 32768 characters.
    pub async fn create_secret(
        &self,
        caller: &Caller,
        secret: NewSecret,
        deadline: Instant,
    ) -> Result<Secret, ApiError> {
        const OPERATION: &str = "CreateSecret";
        check_name(OPERATION, "secret name", &secret.name)?;
        let mut fields = vec![("name", json!(secret.name))];
        fields.extend(secret.kms_key_id.map(|id| ("kms_key_id", json!(id))));
        fields.extend(secret.description.map(|text| ("description", json!(text))));
        let mut operation = Operation::new(OPERATION, Method::POST, &["secrets"]);
        operation.body = Some(body(OPERATION, &fields, &secret.value)?);
        self.one(caller, operation, deadline).await
    }

    /// Returns a secret without its values.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and those of any call.
    pub async fn show_secret(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<Secret, ApiError> {
        const OPERATION: &str = "ShowSecret";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name];
        let operation = Operation::new(OPERATION, Method::GET, &path);
        self.one(caller, operation, deadline).await
    }

    /// Lists the secrets of the project.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn list_secrets(
        &self,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Vec<Secret>, ApiError> {
        self.pages(caller, "ListSecrets", &["secrets"], deadline, |_| Ok(()))
            .await
    }

    /// Deletes a secret with all its versions, immediately and permanently.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it did not exist before the first attempt.
    pub async fn delete_secret(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        const OPERATION: &str = "DeleteSecret";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name];
        let operation = Operation::new(OPERATION, Method::DELETE, &path);
        match self.call(caller, operation, deadline, |_| Ok(())).await {
            // An earlier attempt deleted it, and its response was lost.
            Err(error) if error.kind == ErrorKind::NotFound && error.attempts > 1 => Ok(()),
            result => result,
        }
    }

    /// Adds a version. Without `stages` it becomes `SYSCURRENT`, and the former holder
    /// `SYSPREVIOUS`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Disabled`], and [`ErrorKind::Invalid`] for a bad name or value.
    pub async fn create_secret_version(
        &self,
        caller: &Caller,
        name: &str,
        value: SecretValue,
        stages: &[String],
        deadline: Instant,
    ) -> Result<VersionMetadata, ApiError> {
        const OPERATION: &str = "CreateSecretVersion";
        check_name(OPERATION, "secret name", name)?;
        for stage in stages {
            check_name(OPERATION, "stage", stage)?;
        }
        let mut fields = Vec::new();
        if !stages.is_empty() {
            fields.push(("version_stages", json!(stages)));
        }
        let path = ["secrets", name, "versions"];
        let mut operation = Operation::new(OPERATION, Method::POST, &path);
        operation.body = Some(body(OPERATION, &fields, &value)?);
        self.one(caller, operation, deadline).await
    }

    /// Lists the versions of a secret, without their values.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and those of any call.
    pub async fn list_secret_versions(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<VersionMetadata>, ApiError> {
        const OPERATION: &str = "ListSecretVersions";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name, "versions"];
        let check = |one: &VersionMetadata| check_metadata(one, name);
        self.pages(caller, OPERATION, &path, deadline, check).await
    }

    /// Returns one version with its value. `version` is `v1`, `v2` and so on, or `latest`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Disabled`], [`ErrorKind::Denied`], and those of any call.
    pub async fn show_secret_version(
        &self,
        caller: &Caller,
        name: &str,
        version: &str,
        deadline: Instant,
    ) -> Result<SecretVersion, ApiError> {
        #[derive(Deserialize)]
        struct Body {
            version: VersionBody,
        }
        const OPERATION: &str = "ShowSecretVersion";
        check_name(OPERATION, "secret name", name)?;
        check_version(OPERATION, version)?;
        let path = ["secrets", name, "versions", version];
        let operation = Operation::new(OPERATION, Method::GET, &path);
        self.call(caller, operation, deadline, |bytes| {
            let shown = parse::<Body>(bytes)?.version.into_version()?;
            check_metadata(&shown.metadata, name)?;
            if version != "latest" && shown.metadata.id != version {
                let id = &shown.metadata.id;
                return Err(format!("requested version {version}, got {id}"));
            }
            Ok(shown)
        })
        .await
    }

    /// Returns the version that holds a stage.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] and those of any call.
    pub async fn show_secret_stage(
        &self,
        caller: &Caller,
        name: &str,
        stage: &str,
        deadline: Instant,
    ) -> Result<Stage, ApiError> {
        const OPERATION: &str = "ShowSecretStage";
        check_name(OPERATION, "secret name", name)?;
        check_name(OPERATION, "stage", stage)?;
        let path = ["secrets", name, "stages", stage];
        let operation = Operation::new(OPERATION, Method::GET, &path);
        self.call(caller, operation, deadline, |bytes| {
            let shown = parse::<One<Stage>>(bytes)?.item;
            check_version_id(&shown.version_id)?;
            if shown.name != stage {
                return Err("it is about another stage".to_owned());
            }
            Ok(shown)
        })
        .await
    }

    /// Moves a stage to a version, and creates the stage if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Disabled`], and those of any call.
    pub async fn update_secret_stage(
        &self,
        caller: &Caller,
        name: &str,
        stage: &str,
        version_id: &str,
        deadline: Instant,
    ) -> Result<Stage, ApiError> {
        const OPERATION: &str = "UpdateSecretStage";
        check_name(OPERATION, "secret name", name)?;
        check_name(OPERATION, "stage", stage)?;
        check_version(OPERATION, version_id)?;
        let path = ["secrets", name, "stages", stage];
        let mut operation = Operation::new(OPERATION, Method::PUT, &path);
        let text = json!({ "version_id": version_id }).to_string();
        operation.body = Some(SecretBytes::from(text));
        self.one(caller, operation, deadline).await
    }

    async fn one<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        operation: Operation<'_>,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        self.call(caller, operation, deadline, |bytes| {
            parse::<One<T>>(bytes).map(|answer| answer.item)
        })
        .await
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        operation: &'static str,
        path: &[&str],
        deadline: Instant,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Vec<T>, ApiError> {
        let mut items = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut operation = Operation::new(operation, Method::GET, path);
            operation
                .query
                .extend(marker.clone().map(|marker| ("marker".to_owned(), marker)));
            let read = |bytes: &[u8]| {
                let page = parse::<Page<T>>(bytes)?;
                page.items.iter().try_for_each(&check)?;
                Ok(page)
            };
            let page = self.call(caller, operation, deadline, read).await?;
            let got = page.items.len();
            items.extend(page.items);
            let next = page
                .page_info
                .and_then(|info| info.next_marker)
                .filter(|next| !next.is_empty());
            if got == 0 || next.is_none() || next == marker {
                return Ok(items);
            }
            marker = next;
        }
        Err(ApiError::local(
            operation,
            ErrorKind::Malformed,
            format!("the list does not end after {MAX_PAGES} pages"),
        ))
    }

    async fn call<T>(
        &self,
        caller: &Caller,
        operation: Operation<'_>,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let base = self
            .0
            .csms_endpoint(&caller.region)
            .map_err(|error| ApiError {
                operation: operation.name,
                ..error
            })?;
        let project = self.0.project(caller, deadline).await?;
        let mut path = vec!["v1", project.as_str()];
        path.extend(operation.path);
        // Creating twice differs from creating once.
        let idempotent = operation.method != Method::POST;
        let call = Call {
            operation: operation.name,
            base: &base,
            path: &path,
            query: &operation.query,
            body: operation
                .body
                .map(SecretBytes::into_bytes)
                .unwrap_or_default(),
            idempotent,
            limiter: self.0.limiter(),
            turn: &caller.turn,
            method: operation.method,
        };
        let signer = Signer {
            credentials: &caller.credentials,
            project: Some(&project),
        };
        self.0.send(&call, signer, deadline, read).await
    }
}
