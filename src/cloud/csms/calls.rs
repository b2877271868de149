//! One function per operation.

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::request::{body, check_name, check_version};
use super::value::Version;
use super::{NewSecret, Secret, SecretValue, SecretVersion, Stage, VersionMetadata};
use crate::cloud::error::{ApiError, Kind};
use crate::cloud::http::{Call, Signer, json as parse};
use crate::cloud::{Caller, Cloud};
use crate::secret::SecretBytes;

/// Versions of one secret that CSMS keeps are 20, stages 12, secrets of a user 200; a list that
/// goes on beyond this many pages does not end.
const PAGES: usize = 100;

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
    #[serde(alias = "secrets", alias = "version_metadatas")]
    items: Vec<T>,
    #[serde(default)]
    page_info: Option<PageInfo>,
}

#[derive(Deserialize)]
struct PageInfo {
    #[serde(default)]
    next_marker: Option<String>,
}

/// What is asked, before it becomes a [`Call`].
struct Ask<'a> {
    operation: &'static str,
    method: Method,
    path: &'a [&'a str],
    query: Vec<(String, String)>,
    body: Option<SecretBytes>,
}

impl<'a> Ask<'a> {
    fn new(operation: &'static str, method: Method, path: &'a [&'a str]) -> Self {
        Self {
            operation,
            method,
            path,
            query: Vec::new(),
            body: None,
        }
    }
}

/// CSMS. Every call ends by `deadline`, retries included; errors are [`ApiError`]s whose
/// [`Kind`] tells what they mean.
impl Cloud {
    /// Creates a secret with its first version, `v1`.
    ///
    /// # Errors
    /// [`Kind::Conflict`] where the name exists; [`Kind::Invalid`] for a bad name or a value over
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
        let mut ask = Ask::new(OPERATION, Method::POST, &["secrets"]);
        ask.body = Some(body(OPERATION, &fields, &secret.value)?);
        self.one(caller, ask, deadline).await
    }

    /// A secret without its values.
    ///
    /// # Errors
    /// [`Kind::NotFound`] and those of any call.
    pub async fn show_secret(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<Secret, ApiError> {
        const OPERATION: &str = "ShowSecret";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name];
        let ask = Ask::new(OPERATION, Method::GET, &path);
        self.one(caller, ask, deadline).await
    }

    /// All secrets of the project.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn list_secrets(
        &self,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Vec<Secret>, ApiError> {
        self.pages(caller, "ListSecrets", &["secrets"], deadline)
            .await
    }

    /// Deletes a secret with all its versions, at once and for good.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where there was none before the first try.
    pub async fn delete_secret(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        const OPERATION: &str = "DeleteSecret";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name];
        let ask = Ask::new(OPERATION, Method::DELETE, &path);
        match self.call(caller, ask, deadline, |_| Ok(())).await {
            // an earlier try did it, and its answer was lost
            Err(error) if error.kind == Kind::NotFound && error.attempts > 1 => Ok(()),
            result => result,
        }
    }

    /// Adds a version. Without `stages` it becomes `SYSCURRENT`, and the former holder
    /// `SYSPREVIOUS`.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Disabled`], and [`Kind::Invalid`] for a bad name or value.
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
        let mut ask = Ask::new(OPERATION, Method::POST, &path);
        ask.body = Some(body(OPERATION, &fields, &value)?);
        self.one(caller, ask, deadline).await
    }

    /// All versions of a secret, without their values.
    ///
    /// # Errors
    /// [`Kind::NotFound`] and those of any call.
    pub async fn list_secret_versions(
        &self,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<VersionMetadata>, ApiError> {
        const OPERATION: &str = "ListSecretVersions";
        check_name(OPERATION, "secret name", name)?;
        let path = ["secrets", name, "versions"];
        self.pages(caller, OPERATION, &path, deadline).await
    }

    /// One version with its value. `version` is `v1`, `v2` and so on, or `latest`.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Disabled`], [`Kind::Denied`], and those of any call.
    pub async fn show_secret_version(
        &self,
        caller: &Caller,
        name: &str,
        version: &str,
        deadline: Instant,
    ) -> Result<SecretVersion, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            version: Version,
        }
        const OPERATION: &str = "ShowSecretVersion";
        check_name(OPERATION, "secret name", name)?;
        check_version(OPERATION, version)?;
        let path = ["secrets", name, "versions", version];
        let ask = Ask::new(OPERATION, Method::GET, &path);
        self.call(caller, ask, deadline, |bytes| {
            parse::<Answer>(bytes)?.version.into_version()
        })
        .await
    }

    /// Which version holds a stage.
    ///
    /// # Errors
    /// [`Kind::NotFound`] and those of any call.
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
        let ask = Ask::new(OPERATION, Method::GET, &path);
        self.one(caller, ask, deadline).await
    }

    /// Moves a stage to a version, creating the stage where there is none.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Disabled`], and those of any call.
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
        let mut ask = Ask::new(OPERATION, Method::PUT, &path);
        let text = json!({ "version_id": version_id }).to_string();
        ask.body = Some(SecretBytes::from(text));
        self.one(caller, ask, deadline).await
    }

    async fn one<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        ask: Ask<'_>,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        self.call(caller, ask, deadline, |bytes| {
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
    ) -> Result<Vec<T>, ApiError> {
        let mut items = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..PAGES {
            let mut ask = Ask::new(operation, Method::GET, path);
            ask.query
                .extend(marker.clone().map(|marker| ("marker".to_owned(), marker)));
            let page = self.call(caller, ask, deadline, parse::<Page<T>>).await?;
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
            Kind::Malformed,
            format!("the list does not end after {PAGES} pages"),
        ))
    }

    async fn call<T>(
        &self,
        caller: &Caller,
        ask: Ask<'_>,
        deadline: Instant,
        read: impl Fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        let inner = &self.0;
        let base = inner
            .endpoints
            .csms(&caller.region)
            .map_err(|error| ApiError {
                operation: ask.operation,
                ..error
            })?;
        let project = self.project(caller, deadline).await?;
        let mut path = vec!["v1", project.as_str()];
        path.extend(ask.path);
        // creating twice is not the same as creating once
        let idempotent = ask.method != Method::POST;
        let call = Call {
            operation: ask.operation,
            base: &base,
            path: &path,
            query: &ask.query,
            body: ask.body.map(SecretBytes::into_bytes).unwrap_or_default(),
            idempotent,
            limit: Some(&self.1),
            method: ask.method,
        };
        let signer = Signer {
            credentials: &caller.credentials,
            project: Some(&project),
        };
        inner.sender.send(&call, signer, deadline, read).await
    }
}
