//! Resolves the region, project and credentials with which the secrets of a class are read.

use std::fmt;
use std::time::Duration;

use super::parameters::{INTERVAL, Parameters};
use super::suggestion::nearest;
use crate::cloud::{ApiError, Caller, Cloud, Credentials, ErrorKind, Region, Source, Turn};
use crate::util::env::Env;
use crate::util::poll_interval::RotationPollInterval;

/// Value of the parameter `credentials` that selects the pod's own keys.
pub const PUBLISH_SECRET: &str = "nodePublishSecretRef";

const NO_AGENCY: &str = "assuming an agency by name is not supported: remove it; the ECS node's own agency \
                         is used without naming it";

/// Why a SecretProviderClass cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassError {
    /// [`ErrorKind::Invalid`] if the class is wrong; otherwise what has to be configured first.
    pub kind: ErrorKind,
    /// The class, the parameter, the reason, and what to do.
    pub message: String,
}

/// Resolves region, project and credentials, with defaults for what a class does not set.
pub struct Resolver {
    region: Option<Region>,
    project: Option<String>,
    chain: Credentials,
    sources: Vec<(Source, Result<Credentials, ApiError>)>,
}

impl Resolver {
    /// `project` belongs to `region`, and is used for no other region.
    ///
    /// # Errors
    /// If the credentials in the environment are incomplete.
    pub fn new(
        cloud: &Cloud,
        env: &Env,
        region: Option<Region>,
        project: Option<String>,
    ) -> Result<Self, ApiError> {
        let sources = Source::ALL
            .into_iter()
            .map(|source| (source, cloud.own_credentials(env, Some(source))))
            .collect();
        Ok(Self {
            region,
            project,
            chain: cloud.own_credentials(env, None)?,
            sources,
        })
    }

    /// The region and project in which a class's secrets are read; no project if it follows from the
    /// credentials.
    ///
    /// # Errors
    /// If the class is wrong, or a region is missing.
    pub fn location(&self, class: ClassView<'_>) -> Result<(Region, Option<String>), ClassError> {
        let region = match class.region("region")? {
            Some(region) => region,
            None => self.region.clone().ok_or_else(|| ClassError {
                kind: ErrorKind::Configuration,
                message: format!(
                    "no region: set the parameter region of SecretProviderClass {:?}, or --region of the \
                     provider",
                    class.name
                ),
            })?,
        };
        let project = match class.parameters.protected("projectId") {
            Some(project) => {
                check_project(project).map_err(|why| class.invalid("projectId", &why))?;
                Some(project.to_owned())
            }
            None if Some(&region) == self.region.as_ref() => self.project.clone(),
            None => None,
        };
        Ok((region, project))
    }

    /// The region, project and credentials with which a class's secrets are read for a pod that brings
    /// `pod_credentials`. Makes no network calls.
    ///
    /// # Errors
    /// If the class is wrong, or a region or credentials are missing.
    pub fn caller(
        &self,
        class: ClassView<'_>,
        pod_credentials: Option<Credentials>,
    ) -> Result<Caller, ClassError> {
        let (region, project) = self.location(class)?;
        Ok(Caller {
            credentials: self.credentials(class, pod_credentials)?,
            region,
            project,
            turn: Turn::default(),
        })
    }

    fn credentials(
        &self,
        class: ClassView<'_>,
        pod_credentials: Option<Credentials>,
    ) -> Result<Credentials, ClassError> {
        if class.parameters.protected("agency").is_some() {
            return Err(class.invalid("agency", NO_AGENCY));
        }
        let choice = class.parameters.protected("credentials");
        match (choice, pod_credentials) {
            (None | Some(PUBLISH_SECRET), Some(credentials)) => Ok(credentials),
            (None, None) => Ok(self.chain.clone()),
            (Some(PUBLISH_SECRET), None) => Err(class.invalid(
                "credentials",
                "nodePublishSecretRef is required, but the pod's volume does not set it",
            )),
            (Some(name), _) => {
                let found = self
                    .sources
                    .iter()
                    .find(|(source, _)| source.name() == name);
                match found {
                    Some((_, Ok(credentials))) => Ok(credentials.clone()),
                    Some((_, Err(error))) => Err(ClassError {
                        kind: error.kind,
                        message: error.to_string(),
                    }),
                    None => Err(class.invalid("credentials", &unknown_source(name))),
                }
            }
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A class's name, for errors, and its parameters.
#[derive(Clone, Copy, Debug)]
pub struct ClassView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its parameters.
    pub parameters: &'a Parameters,
}

impl ClassView<'_> {
    /// The region in a parameter, if it is set.
    ///
    /// # Errors
    /// If it is not a region ID.
    pub fn region(self, parameter: &str) -> Result<Option<Region>, ClassError> {
        let given = self.parameters.protected(parameter);
        given
            .map(str::parse)
            .transpose()
            .map_err(|error| self.invalid(parameter, &format!("{error}")))
    }

    /// The polling interval of the class, if it sets one.
    ///
    /// # Errors
    /// If it is not a valid interval.
    pub fn interval(self) -> Result<Option<Duration>, ClassError> {
        let interval = self.parameters.interval();
        interval.map_err(|why| self.invalid(INTERVAL, &why))
    }

    fn invalid(self, parameter: &str, reason: &str) -> ClassError {
        ClassError {
            kind: ErrorKind::Invalid,
            message: format!(
                "SecretProviderClass {:?}, parameter {parameter}: {reason}",
                self.name
            ),
        }
    }
}

/// Checks one protected parameter, for manifests that are not mounted yet.
///
/// # Errors
/// Why the value is invalid.
pub fn check_parameter(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    match name {
        "region" | "failoverRegion" => value
            .parse::<Region>()
            .map(drop)
            .map_err(|error| error.to_string()),
        "projectId" => check_project(value),
        "credentials" if value == PUBLISH_SECRET => Ok(()),
        "credentials" if Source::ALL.iter().any(|s| s.name() == value) => Ok(()),
        "credentials" => Err(unknown_source(value)),
        "agency" => Err(NO_AGENCY.to_owned()),
        INTERVAL => value.parse::<RotationPollInterval>().map(drop),
        _ => Ok(()),
    }
}

/// Project IDs are usually 32 hexadecimal digits; what matters is that they stay one segment of a path.
fn check_project(text: &str) -> Result<(), String> {
    let fits = text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if fits {
        Ok(())
    } else {
        Err("must be at most 64 letters, digits, - or _".into())
    }
}

fn unknown_source(name: &str) -> String {
    let mut known = vec![PUBLISH_SECRET];
    known.extend(Source::ALL.iter().map(|s| s.name()));
    let hint = nearest(name, &known).map(|near| format!("; did you mean {near}?"));
    format!(
        "unknown source {name:?}: use one of {}{}",
        known.join(", "),
        hint.unwrap_or_default()
    )
}
