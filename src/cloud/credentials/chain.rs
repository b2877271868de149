//! The process's own credentials: the first source that is configured.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::access_keys::AccessKeys;
use super::ecs_agency::EcsAgency;
use super::file::{CredentialsFile, FileStamp};
use super::fingerprint::FingerprintParts;
use super::source::{Source, SourceError};
use crate::cloud::error::{ApiError, ErrorKind};
use crate::util::env::Env;

const AK: &str = "HUAWEICLOUD_SDK_AK";
const SK: &str = "HUAWEICLOUD_SDK_SK";
const TOKEN: &str = "HUAWEICLOUD_SDK_SECURITY_TOKEN";
const PROJECT: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// The sources that may be used, and the one in use.
pub(in crate::cloud) struct CredentialChain {
    sources: &'static [Source],
    /// `None` if the variables are not set, an error if they are wrong.
    environment: Result<Option<Arc<AccessKeys>>, String>,
    file: Option<CredentialsFile>,
    /// Whether the file is configured by name, so that it must exist.
    file_is_named: bool,
    agency: EcsAgency,
    project: Option<String>,
    chosen: OnceLock<Source>,
}

impl CredentialChain {
    /// Reads `env`, and nothing else yet. With `only`, no other source is used.
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`] if the environment variables are used and wrong.
    pub(in crate::cloud) fn new(
        agency: EcsAgency,
        env: &Env,
        only: Option<Source>,
    ) -> Result<Self, ApiError> {
        let sources: &'static [Source] = match only {
            None => &Source::ALL,
            Some(Source::Environment) => &[Source::Environment],
            Some(Source::File) => &[Source::File],
            Some(Source::Agency) => &[Source::Agency],
        };
        let chain = Self {
            sources,
            environment: environment(env),
            file: env
                .get(FILE)
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(env.get("HOME")?).join(".huaweicloud/credentials")))
                .map(CredentialsFile::new),
            file_is_named: env.get(FILE).is_some(),
            agency,
            project: env.get(PROJECT).map(str::to_owned),
            chosen: OnceLock::new(),
        };
        if sources.contains(&Source::Environment)
            && let Err(why) = &chain.environment
        {
            return Err(Source::Environment.error(why));
        }
        Ok(chain)
    }

    /// The state of the credentials file, if the keys are or may be from it.
    pub(super) fn file_stamp(&self) -> Option<FileStamp> {
        let other = matches!(self.environment, Ok(Some(_)))
            && self.sources.contains(&Source::Environment)
            || !self.sources.contains(&Source::File)
            || self.chosen.get() == Some(&Source::Agency);
        match &self.file {
            Some(file) if !other => file.stamp_now(),
            _ => None,
        }
    }

    pub(super) fn source(&self) -> &'static str {
        self.chosen.get().map_or("own", |source| source.name())
    }

    pub(super) async fn keys(&self, deadline: Instant) -> Result<Arc<AccessKeys>, ApiError> {
        if let Some(&source) = self.chosen.get() {
            let keys = self.of(source, deadline).await;
            return keys.map_err(|error| error.into_api_error(source));
        }
        let mut tried = Vec::new();
        for &source in self.sources {
            match self.of(source, deadline).await {
                Ok(keys) => {
                    if self.chosen.set(source).is_ok() {
                        tracing::info!(source = source.name(), "using credentials");
                    }
                    return Ok(keys);
                }
                Err(SourceError::NotConfigured(why)) => {
                    tried.push(format!("{}: {why}", source.name()));
                }
                Err(SourceError::Failed(error)) => return Err(error),
            }
        }
        Err(ApiError::local(
            "GetCredentials",
            ErrorKind::Credentials,
            format!("no credentials are configured ({})", tried.join("; ")),
        ))
    }

    /// What identifies the source in use across restarts; before the first use, the source that would be
    /// used: the agency if no other is configured. Makes no network calls.
    pub(super) async fn fingerprint_parts(&self) -> Option<FingerprintParts> {
        let sources = match self.chosen.get() {
            Some(source) => std::slice::from_ref(source),
            None => self.sources,
        };
        for source in sources {
            let keys = match source {
                Source::Agency => None,
                // Neither of these sends a request.
                Source::Environment | Source::File => {
                    match self.of(*source, Instant::now()).await {
                        Ok(keys) => Some(keys.hash()),
                        Err(SourceError::NotConfigured(_)) => continue,
                        Err(SourceError::Failed(_)) => return None,
                    }
                }
            };
            let project = self.project_of(Some(source)).await.ok()?;
            return Some(FingerprintParts { keys, project });
        }
        None
    }

    async fn of(&self, source: Source, deadline: Instant) -> Result<Arc<AccessKeys>, SourceError> {
        let failed = |why: &str| SourceError::Failed(source.error(why));
        match source {
            Source::Environment => match &self.environment {
                Ok(Some(keys)) => Ok(Arc::clone(keys)),
                Ok(None) => Err(SourceError::NotConfigured(format!("{AK} is not set"))),
                Err(why) => Err(failed(why)),
            },
            Source::File => {
                let Some(file) = &self.file else {
                    let why = format!("neither {FILE} nor HOME is set");
                    return Err(SourceError::NotConfigured(why));
                };
                let profile = file.read().await.map_err(|why| failed(&why))?;
                let Some(profile) = profile else {
                    let missing = format!("{} does not exist", file.path().display());
                    return Err(if self.file_is_named {
                        failed(&format!("{missing} (set by {FILE})"))
                    } else {
                        SourceError::NotConfigured(missing)
                    });
                };
                Ok(profile.keys)
            }
            Source::Agency => self.agency.keys(deadline).await,
        }
    }

    pub(super) async fn renew(
        &self,
        refused: &AccessKeys,
        deadline: Instant,
    ) -> Result<bool, ApiError> {
        match self.chosen.get() {
            Some(Source::Agency) => self.agency.renew(refused, deadline).await,
            // The file is read again whenever its keys are needed.
            Some(Source::File) => Ok(!self.keys(deadline).await?.same(refused)),
            Some(Source::Environment) | None => Ok(false),
        }
    }

    /// The project of the credentials file if its keys are in use, else that of the environment.
    pub(super) async fn project(&self, deadline: Instant) -> Result<Option<String>, ApiError> {
        if self.chosen.get().is_none() {
            self.keys(deadline).await?;
        }
        self.project_of(self.chosen.get()).await
    }

    async fn project_of(&self, source: Option<&Source>) -> Result<Option<String>, ApiError> {
        if source == Some(&Source::File)
            && let Some(file) = &self.file
        {
            let profile = file.read().await.map_err(|why| Source::File.error(&why))?;
            if let Some(project) = profile.and_then(|profile| profile.project) {
                return Ok(Some(project));
            }
        }
        Ok(self.project.clone())
    }
}

/// The keys of the environment. Half a pair is an error rather than "not configured".
fn environment(env: &Env) -> Result<Option<Arc<AccessKeys>>, String> {
    match (env.get(AK), env.get(SK)) {
        (Some(access), Some(secret)) => Ok(Some(Arc::new(AccessKeys::new(
            access,
            secret,
            env.get(TOKEN).map(str::to_owned),
            None,
        )))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("{AK} is set but {SK} is not, or is empty")),
        (None, Some(_)) => Err(format!("{SK} is set but {AK} is not, or is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_of_keys_is_a_failure() {
        let from = |pairs: &[(&str, &str)]| environment(&Env::from_pairs(pairs.iter().copied()));
        assert!(from(&[]).unwrap().is_none());
        assert!(from(&[(AK, ""), (SK, "")]).unwrap().is_none());
        assert!(from(&[(AK, "a")]).unwrap_err().contains(SK));
        assert!(from(&[(AK, "a"), (SK, "")]).unwrap_err().contains(SK));
        assert!(from(&[(SK, "s")]).unwrap_err().contains(AK));
        let keys = from(&[(AK, "a"), (SK, "s"), (TOKEN, "t")])
            .unwrap()
            .unwrap();
        assert_eq!(keys.security_token(), Some("t"));
    }
}
