//! The chain of the process's own sources.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use url::Url;

use super::agency::Agency;
use super::file::{CredentialsFile, Stamp};
use super::{AccessKeys, Source, failed};
use crate::cloud::env::Env;
use crate::cloud::error::{ApiError, Kind};
use crate::cloud::http;

const AK: &str = "HUAWEICLOUD_SDK_AK";
const SK: &str = "HUAWEICLOUD_SDK_SK";
const TOKEN: &str = "HUAWEICLOUD_SDK_SECURITY_TOKEN";
const PROJECT: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
const FILE: &str = "HUAWEICLOUD_SDK_CREDENTIALS_FILE";

/// The sources, and the one that was found to be configured.
pub(super) struct Own {
    sources: &'static [Source],
    /// `None` where the variables are not set; an error where they are wrong.
    environment: Result<Option<Arc<AccessKeys>>, String>,
    file: Option<CredentialsFile>,
    /// Whether the file was named, so that it must be there.
    file_is_named: bool,
    agency: Agency,
    project: Option<String>,
    chosen: OnceLock<Source>,
}

impl Own {
    pub(super) fn new(
        sender: http::Shared,
        metadata: Url,
        env: &Env,
        only: Option<Source>,
    ) -> Result<Self, ApiError> {
        let sources: &'static [Source] = match only {
            None => &Source::ALL,
            Some(Source::Environment) => &[Source::Environment],
            Some(Source::File) => &[Source::File],
            Some(Source::Agency) => &[Source::Agency],
        };
        let own = Self {
            sources,
            environment: environment(env),
            file: env
                .get(FILE)
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(env.get("HOME")?).join(".huaweicloud/credentials")))
                .map(CredentialsFile::new),
            file_is_named: env.get(FILE).is_some(),
            agency: Agency::new(sender, metadata),
            project: env.get(PROJECT).map(str::to_owned),
            chosen: OnceLock::new(),
        };
        if sources.contains(&Source::Environment)
            && let Err(why) = &own.environment
        {
            return Err(failed(Source::Environment, why));
        }
        Ok(own)
    }

    /// Tells one state of the credentials file from another, where the keys are or may be its.
    pub(super) fn state(&self) -> Option<Stamp> {
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
            return self
                .of(source, deadline)
                .await
                .and_then(|found| found.map_err(|why| failed(source, &why)));
        }
        let mut tried = Vec::new();
        for &source in self.sources {
            match self.of(source, deadline).await? {
                Ok(keys) => {
                    if self.chosen.set(source).is_ok() {
                        tracing::info!(source = source.name(), "credentials found");
                    }
                    return Ok(keys);
                }
                Err(why) => tried.push(format!("{}: {why}", source.name())),
            }
        }
        Err(ApiError::local(
            "GetCredentials",
            Kind::Credentials,
            format!("no credentials are configured ({})", tried.join("; ")),
        ))
    }

    /// See [`super::Credentials::lasting`]. Of the source in use, or else of the one that would be
    /// used next: the agency where no other is configured.
    pub(super) async fn lasting(&self) -> Option<(Option<[u8; 32]>, Option<String>)> {
        let sources = match self.chosen.get() {
            Some(source) => std::slice::from_ref(source),
            None => self.sources,
        };
        for source in sources {
            let hash = match source {
                Source::Agency => None,
                // Neither of these asks anybody.
                Source::Environment | Source::File => {
                    match self.of(*source, Instant::now()).await.ok()? {
                        Ok(keys) => Some(keys.hash()),
                        Err(_not_configured) => continue,
                    }
                }
            };
            return Some((hash, self.project_of(Some(source)).await.ok()?));
        }
        None
    }

    /// The keys of a source; inside, why it is not configured; outside, how it failed.
    async fn of(
        &self,
        source: Source,
        deadline: Instant,
    ) -> Result<Result<Arc<AccessKeys>, String>, ApiError> {
        match source {
            Source::Environment => self
                .environment
                .clone()
                .map(|keys| keys.ok_or_else(|| format!("{AK} is not set")))
                .map_err(|why| failed(source, &why)),
            Source::File => {
                let Some(file) = &self.file else {
                    return Ok(Err(format!("neither {FILE} nor HOME is set")));
                };
                let profile = file.read().await.map_err(|why| failed(source, &why))?;
                let missing = || format!("{} does not exist", file.path().display());
                if profile.is_none() && self.file_is_named {
                    return Err(failed(
                        source,
                        &format!("{}, which {FILE} names", missing()),
                    ));
                }
                Ok(profile.map(|profile| profile.keys).ok_or_else(missing))
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
            // reading the file is all that asking it for keys does
            Some(Source::File) => Ok(!self.keys(deadline).await?.same(refused)),
            Some(Source::Environment) | None => Ok(false),
        }
    }

    /// That of the file, where the keys are the file's; else that of the environment.
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
            let profile = file
                .read()
                .await
                .map_err(|why| failed(Source::File, &why))?;
            if let Some(project) = profile.and_then(|profile| profile.project) {
                return Ok(Some(project));
            }
        }
        Ok(self.project.clone())
    }
}

/// The keys of the environment. A half of a pair is a mistake, not "not configured".
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
