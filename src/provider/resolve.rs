//! Step 3, resolve: as whom, where, and for what the cloud is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::authorize::Authorized;
use super::error::{MountError, Reason};
use super::parameters::{INTERVAL, Parameters};
use super::secrets::PublishSecret;
use super::spec::{Object, nearest};
use crate::cloud::{AccessKeys, ApiError, Caller, Cloud, Credentials, Env, Region, Source};
use crate::interval::RotationPollInterval;
use crate::store::Key;

/// Value of the parameter `credentials` that asks for the pod's own keys.
pub const PUBLISH_SECRET: &str = "nodePublishSecretRef";

const NO_AGENCY: &str = "assuming an agency by name is not supported yet: remove it; the ECS node's \
                         own agency is used without being named";

/// One object and what the store knows it by.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The object.
    pub object: Arc<Object>,
}

/// What is to be fetched for one Mount.
#[derive(Debug)]
pub struct Plan {
    /// The objects, in the order written.
    pub objects: Vec<Planned>,
    /// Their keys, in the same order.
    pub keys: Arc<[Key]>,
    /// As whom and where.
    pub caller: Arc<Caller>,
    /// Asked only where the first region could not answer.
    pub failover: Option<Arc<Caller>>,
    /// The class's own interval, if it has one.
    pub interval: Option<Duration>,
    /// When the answer is due.
    pub deadline: Instant,
}

/// Defaults for what a SecretProviderClass does not say.
pub struct Resolver {
    region: Option<Region>,
    project: Option<String>,
    chain: Credentials,
    sources: Vec<(Source, Result<Credentials, ApiError>)>,
}

impl Resolver {
    /// `project` belongs to `region`, and is used for no other.
    ///
    /// # Errors
    /// Credentials in the environment that can already be seen to be wrong.
    pub fn new(
        cloud: &Cloud,
        env: &Env,
        region: Option<Region>,
        project: Option<String>,
    ) -> Result<Self, ApiError> {
        let sources = Source::ALL
            .into_iter()
            .map(|s| (s, cloud.own_credentials(env, Some(s))))
            .collect();
        Ok(Self {
            region,
            project,
            chain: cloud.own_credentials(env, None)?,
            sources,
        })
    }

    /// The provider's own identity.
    pub fn chain(&self) -> &Credentials {
        &self.chain
    }

    /// Decides region, project and identity. Asks nobody.
    pub fn resolve(&self, authorized: &Authorized) -> Result<Plan, MountError> {
        let Authorized { request, spec } = authorized;
        let class = Class {
            name: &request.class,
            parameters: &request.parameters,
        };
        let caller = Arc::new(self.caller(class, request.secret.as_deref())?);
        let failover = class.region("failoverRegion")?.map(|region| {
            Arc::new(Caller {
                region,
                project: None,
                credentials: caller.credentials.clone(),
            })
        });
        let identity = caller.credentials.identity();
        Ok(Plan {
            keys: spec
                .objects
                .iter()
                .map(|o| Key::new(&caller, &identity, &o.name, &o.selector))
                .collect(),
            objects: spec
                .objects
                .iter()
                .map(|o| Planned {
                    object: Arc::clone(o),
                })
                .collect(),
            caller,
            failover,
            interval: class.interval()?,
            deadline: request.deadline,
        })
    }

    /// As whom and where a class's secrets are asked for, by a pod that brings `secret`.
    pub fn caller(
        &self,
        class: Class<'_>,
        secret: Option<&PublishSecret>,
    ) -> Result<Caller, MountError> {
        let region = match class.region("region")? {
            Some(region) => region,
            None => self.region.clone().ok_or_else(|| {
                MountError::new(
                    Reason::Precondition,
                    format!(
                        "no region: give SecretProviderClass {:?} the parameter region, or the \
                         provider --region",
                        class.name
                    ),
                )
            })?,
        };
        let project = match class.parameters.protected("projectId") {
            Some(project) => {
                check_project(project).map_err(|why| class.wrong("projectId", &why))?;
                Some(project.to_owned())
            }
            None if Some(&region) == self.region.as_ref() => self.project.clone(),
            None => None,
        };
        Ok(Caller {
            credentials: self.credentials(class, secret)?,
            region,
            project,
        })
    }

    fn credentials(
        &self,
        class: Class<'_>,
        secret: Option<&PublishSecret>,
    ) -> Result<Credentials, MountError> {
        if class.parameters.protected("agency").is_some() {
            return Err(class.wrong("agency", NO_AGENCY));
        }
        let own = |secret: &PublishSecret| {
            let keys = AccessKeys::new(
                secret.access_key.as_str(),
                secret.secret_key.as_str(),
                secret
                    .security_token
                    .as_ref()
                    .map(|token| token.to_string()),
                None,
            );
            Credentials::fixed(keys, PUBLISH_SECRET)
        };
        let choice = class.parameters.protected("credentials");
        match (choice, secret) {
            (None | Some(PUBLISH_SECRET), Some(secret)) => Ok(own(secret)),
            (None, None) => Ok(self.chain.clone()),
            (Some(PUBLISH_SECRET), None) => Err(class.wrong(
                "credentials",
                "it asks for nodePublishSecretRef, but the pod's volume names none",
            )),
            (Some(name), _) => {
                match self
                    .sources
                    .iter()
                    .find(|(source, _)| source.name() == name)
                {
                    Some((_, Ok(credentials))) => Ok(credentials.clone()),
                    Some((_, Err(error))) => {
                        Err(MountError::new(error.kind.into(), error.to_string()))
                    }
                    None => Err(class.wrong("credentials", &unknown_source(name))),
                }
            }
        }
    }
}

/// A SecretProviderClass's name, for errors, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Class<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its parameters.
    pub parameters: &'a Parameters,
}

impl Class<'_> {
    fn region(self, parameter: &str) -> Result<Option<Region>, MountError> {
        let given = self.parameters.protected(parameter);
        given
            .map(str::parse)
            .transpose()
            .map_err(|error| self.wrong(parameter, &format!("{error}")))
    }

    /// Its own interval, if it has one.
    pub fn interval(self) -> Result<Option<Duration>, MountError> {
        let interval = self.parameters.interval();
        interval.map_err(|why| self.wrong(INTERVAL, &why))
    }

    fn wrong(self, parameter: &str, reason: &str) -> MountError {
        MountError::new(
            Reason::Invalid,
            format!(
                "SecretProviderClass {:?}, parameter {parameter}: {reason}",
                self.name
            ),
        )
    }
}

/// Checks a protected parameter by itself, for manifests that are not mounted yet.
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

/// Project ids are 32 hexadecimal digits in practice; what matters is that they stay one segment
/// of a path.
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
        "{name:?} is none of {}{}",
        known.join(", "),
        hint.unwrap_or_default()
    )
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}
