//! Step 2, authorize: may this pod have these secrets, under these settings?

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{MountError, Reason};
use super::parameters::PROTECTED;
use super::request::Request;
use super::spec::Spec;
use crate::kube::accounts::{ANNOTATION, AllowList};
use crate::kube::{Accounts, Classes, KubeError};

/// A refusal is not answered from what was read longer ago than this: who has just mended an
/// annotation should not wait for an interval to pass.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// Whether the ServiceAccount's list decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[clap(rename_all = "camelCase")]
pub enum AllowListMode {
    /// The list must be there and name every secret, as for the CCE add-on.
    #[default]
    Required,
    /// A list that is there decides; without one every secret is allowed.
    IfPresent,
    /// Lists are not read.
    Off,
}

/// A request that may go on, with its objects.
#[derive(Debug)]
pub struct Authorized {
    /// The request.
    pub request: Request,
    /// Its objects.
    pub spec: Arc<Spec>,
}

/// Decides by what the API server says.
#[derive(Debug)]
pub struct Authorizer {
    mode: AllowListMode,
    kube: Option<(Classes, Accounts)>,
}

impl Authorizer {
    /// Without `kube` neither overrides nor lists can be checked, which only
    /// [`AllowListMode::Off`] permits.
    pub fn new(mode: AllowListMode, kube: Option<(Classes, Accounts)>) -> Self {
        Self { mode, kube }
    }

    /// Lets the request go on, or says what is not allowed. What was read may be `max_age` old.
    pub async fn authorize(
        &self,
        request: Request,
        spec: Arc<Spec>,
        max_age: Duration,
    ) -> Result<Authorized, MountError> {
        let Some((classes, accounts)) = &self.kube else {
            return match self.mode {
                AllowListMode::Off => Ok(Authorized { request, spec }),
                AllowListMode::Required | AllowListMode::IfPresent => Err(MountError::new(
                    Reason::Internal,
                    "ServiceAccounts cannot be read without a connection to Kubernetes",
                )),
            };
        };
        check_overrides(classes, &request).await?;
        if self.mode != AllowListMode::Off {
            self.check_list(accounts, &request, &spec, max_age).await?;
        }
        Ok(Authorized { request, spec })
    }

    async fn check_list(
        &self,
        accounts: &Accounts,
        request: &Request,
        spec: &Spec,
        max_age: Duration,
    ) -> Result<(), MountError> {
        let pod = &request.pod;
        if pod.service_account.is_empty() || pod.namespace.is_empty() {
            return Err(MountError::new(
                Reason::Invalid,
                "the request names no ServiceAccount: its CSIDriver object must have podInfoOnMount",
            ));
        }
        let mut age = max_age;
        loop {
            let (list, read) = accounts
                .list(&pod.namespace, &pod.service_account, age, request.deadline)
                .await
                .map_err(from_kube)?;
            match self.judge(&list, request, spec) {
                Err(_) if read > RECHECK_AFTER => age = Duration::ZERO,
                verdict => return verdict,
            }
        }
    }

    fn judge(&self, list: &AllowList, request: &Request, spec: &Spec) -> Result<(), MountError> {
        let account = format!("{}/{}", request.pod.namespace, request.pod.service_account);
        let names = match list {
            AllowList::Names(names) => names,
            AllowList::Absent if self.mode == AllowListMode::IfPresent => return Ok(()),
            AllowList::Absent => {
                let wanted: Vec<_> = spec.objects.iter().map(|o| o.name.as_str()).collect();
                return Err(MountError::new(
                    Reason::Denied,
                    format!(
                        "ServiceAccount {account} has no annotation {ANNOTATION}: it must list the \
                         secrets that its pods may mount, here {}",
                        serde_json::json!(wanted)
                    ),
                ));
            }
            AllowList::Bad(why) => {
                let message = format!("ServiceAccount {account}, annotation {ANNOTATION}: {why}");
                return Err(MountError::new(Reason::Denied, message));
            }
        };
        let unlisted: Vec<_> = spec
            .objects
            .iter()
            .map(|o| o.name.as_str())
            .filter(|n| !names.contains(*n))
            .collect();
        if unlisted.is_empty() {
            return Ok(());
        }
        Err(MountError::new(
            Reason::Denied,
            format!(
                "ServiceAccount {account} does not list {} in its annotation {ANNOTATION}: add {} \
                 there, or take {} out of SecretProviderClass {:?}",
                unlisted
                    .iter()
                    .map(|n| format!("{n:?}"))
                    .collect::<Vec<_>>()
                    .join(", "),
                if unlisted.len() == 1 { "it" } else { "them" },
                if unlisted.len() == 1 { "it" } else { "them" },
                request.class
            ),
        ))
    }
}

/// Refuses protected parameters that are not what the SecretProviderClass says: the driver copies
/// a pod's volumeAttributes over them.
async fn check_overrides(classes: &Classes, request: &Request) -> Result<(), MountError> {
    let (namespace, name) = (&request.pod.namespace, &request.class);
    if name.is_empty() {
        return Err(MountError::new(
            Reason::Invalid,
            "the request names no SecretProviderClass",
        ));
    }
    let none = BTreeMap::new();
    if let Some(class) = classes.seen(namespace, name)
        && differing(request, class.spec.parameters.as_ref().unwrap_or(&none)).is_none()
    {
        return Ok(());
    }
    // The driver may have seen an edit, or a new class, before our watch did.
    let class = classes
        .read(namespace, name, request.deadline)
        .await
        .map_err(from_kube)?;
    let Some(key) = differing(request, class.spec.parameters.as_ref().unwrap_or(&none)) else {
        return Ok(());
    };
    Err(MountError::new(
        Reason::Denied,
        format!(
            "parameter {key} differs from SecretProviderClass {namespace}/{name}: either the pod \
             overrides it in volumeAttributes, which is not allowed (set it in the \
             SecretProviderClass), or the class was edited and the driver has not seen it yet (the \
             next try will succeed)"
        ),
    ))
}

/// The first protected parameter with another value than the class gives it.
fn differing(request: &Request, class: &BTreeMap<String, String>) -> Option<&'static str> {
    (PROTECTED.iter().zip(&request.parameters.protected))
        .find(|(key, value)| value.as_ref() != class.get(**key))
        .map(|(key, _)| *key)
}

fn from_kube(error: KubeError) -> MountError {
    let reason = match error {
        KubeError::NotFound(_) => Reason::NotFound,
        KubeError::Forbidden { .. } => Reason::Precondition,
        KubeError::Failed { .. } => Reason::Internal,
    };
    MountError::new(reason, error.to_string())
}

impl fmt::Display for AllowListMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::IfPresent => "ifPresent",
            Self::Off => "off",
        })
    }
}
