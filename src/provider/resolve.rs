//! Step 3, resolve: as whom, where, and for what the cloud is asked.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::authorize::Authorized;
use super::error::{MountError, Reason};
use super::request::Request;
use super::spec::{Object, nearest};
use crate::cloud::{AccessKeys, ApiError, Caller, Cloud, Credentials, Env, Region, Source};
use crate::store::Key;

/// Value of the parameter `credentials` that asks for the pod's own keys.
const PUBLISH_SECRET: &str = "nodePublishSecretRef";

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
    pub keys: Vec<Key>,
    /// As whom and where.
    pub caller: Arc<Caller>,
    /// Asked only where the first region could not answer.
    pub failover: Option<Arc<Caller>>,
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
        let region = match self.region_of(request, "region")? {
            Some(region) => region,
            None => self.region.clone().ok_or_else(|| {
                MountError::new(
                    Reason::Precondition,
                    format!(
                        "no region: give SecretProviderClass {:?} the parameter region, or the \
                         provider --region",
                        request.class
                    ),
                )
            })?,
        };
        let credentials = self.credentials(request)?;
        let project = match request.parameters.protected("projectId") {
            Some(project) => {
                check_project(project).map_err(|why| wrong(request, "projectId", &why))?;
                Some(project.to_owned())
            }
            None if Some(&region) == self.region.as_ref() => self.project.clone(),
            None => None,
        };
        let failover = self.region_of(request, "failoverRegion")?.map(|region| {
            Arc::new(Caller {
                region,
                project: None,
                credentials: credentials.clone(),
            })
        });
        let caller = Arc::new(Caller {
            region,
            project,
            credentials,
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
            deadline: request.deadline,
        })
    }

    fn region_of(&self, request: &Request, parameter: &str) -> Result<Option<Region>, MountError> {
        let Some(text) = request.parameters.protected(parameter) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error| wrong(request, parameter, &format!("{error}")))
    }

    fn credentials(&self, request: &Request) -> Result<Credentials, MountError> {
        if request.parameters.protected("agency").is_some() {
            return Err(wrong(request, "agency", NO_AGENCY));
        }
        let own = |secret: &super::secrets::PublishSecret| {
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
        let choice = request.parameters.protected("credentials");
        match (choice, &request.secret) {
            (None | Some(PUBLISH_SECRET), Some(secret)) => Ok(own(secret)),
            (None, None) => Ok(self.chain.clone()),
            (Some(PUBLISH_SECRET), None) => Err(wrong(
                request,
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
                    None => Err(wrong(request, "credentials", &unknown_source(name))),
                }
            }
        }
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

fn wrong(request: &Request, parameter: &str, reason: &str) -> MountError {
    MountError::new(
        Reason::Invalid,
        format!(
            "SecretProviderClass {:?}, parameter {parameter}: {reason}",
            request.class
        ),
    )
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}
