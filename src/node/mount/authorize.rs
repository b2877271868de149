//! Step 3, authorize: whether the pod may mount these secrets with these parameters, by the class, the
//! ServiceAccount's list and the operator's policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{MountError, Reason};
use super::request::Request;
use crate::class::objects::Objects;
use crate::class::parameters::PROTECTED;
use crate::class::resolver::{ClassView, Resolver};
use crate::kube::service_accounts::{ANNOTATION, AllowList};
use crate::kube::{AllowListMode, Classes, KubeError, PodRef, ServiceAccounts};
use crate::node::volumes::MountRecord;
use crate::policy::{Place, PolicyWatch};
use crate::util::text::joined;

/// Before a list that is older than this denies a pod, the authorizer reads it again, so that a corrected
/// annotation takes effect at once.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// Maximum number of secrets that a message names.
const MAX_NAMED: usize = 20;
/// Maximum size of their names, in bytes.
const MAX_NAMES: usize = 2048;

/// A request whose class, overrides and ServiceAccount have been checked.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Request);

/// An authorized request with its objects.
#[derive(Debug)]
pub struct Authorized<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its objects.
    pub objects: Arc<Objects>,
}

/// Authorizes requests against the classes and ServiceAccounts of the API server, and the operator's policy.
/// Clones share their caches.
#[derive(Clone, Debug)]
pub struct Authorizer {
    mode: AllowListMode,
    kube: Option<(Classes, ServiceAccounts)>,
    policy: PolicyWatch,
    /// Resolves the regions and projects that the policy allows.
    resolver: Arc<Resolver>,
}

impl Authorizer {
    /// Without `kube`, the authorizer can check neither overrides nor lists, and only [`AllowListMode::Off`]
    /// works.
    pub fn new(
        mode: AllowListMode,
        kube: Option<(Classes, ServiceAccounts)>,
        policy: PolicyWatch,
        resolver: Arc<Resolver>,
    ) -> Self {
        Self {
            mode,
            kube,
            policy,
            resolver,
        }
    }

    /// Authorizes the objects of an admitted request, with a list that is at most `max_age` old and the policy as
    /// it is now.
    ///
    /// # Errors
    /// [`Reason::Denied`] if a secret is not allowed; other reasons if the ServiceAccount cannot be read, or if the
    /// class is wrong.
    pub async fn authorize<'a>(
        &self,
        Admitted(request): Admitted<'a>,
        objects: Arc<Objects>,
        max_age: Duration,
    ) -> Result<Authorized<'a>, MountError> {
        if let (Some((_, accounts)), true) = (&self.kube, self.mode != AllowListMode::Off) {
            self.check_list(accounts, request, &objects, max_age)
                .await?;
        }
        // Last, so that no wait comes between the policy and the answer.
        self.check_policy(request, &objects)?;
        Ok(Authorized { request, objects })
    }

    /// Checks that the policy still allows the secrets of a mounted volume, and that the pod's ServiceAccount still
    /// lists them, with a list that is at most `max_age` old. With `confirm`, a list that denies them is read
    /// again.
    ///
    /// # Errors
    /// The outer one if the list cannot be read, so that nothing is known; the inner one if it denies a secret.
    pub async fn recheck(
        &self,
        record: &MountRecord,
        class: &str,
        max_age: Duration,
        confirm: bool,
        deadline: Instant,
    ) -> Result<Result<(), MountError>, KubeError> {
        let (pod, caller) = (&record.pod, &record.caller);
        let secrets: Vec<&str> = record.keys.iter().map(|key| key.secret.as_str()).collect();
        let secrets = &secrets;
        let place = Place::new(caller.region.as_str(), caller.project.as_deref());
        let allowed = secrets.iter().copied();
        if let Err(denial) = self.policy.current().check(&pod.namespace, place, allowed) {
            return Ok(Err(MountError::new(
                Reason::Denied,
                format!("SecretProviderClass {class:?}, {denial}"),
            )));
        }
        let Some((_, accounts)) = &self.kube else {
            return Ok(Ok(()));
        };
        if self.mode == AllowListMode::Off {
            return Ok(Ok(()));
        }
        let (namespace, name) = (&pod.namespace, &pod.service_account);
        let judge = |read: Result<Arc<AllowList>, KubeError>| match read {
            Ok(list) => Ok(self.check_names(&list, pod, class, secrets)),
            Err(error @ KubeError::NotFound(_)) => Ok(Err(from_kube(error))),
            Err(error) => Err(error),
        };
        let verdict = judge(accounts.recent(namespace, name, max_age, deadline).await)?;
        if verdict.is_ok() || !confirm {
            return Ok(verdict);
        }
        // What the API server has cached may be older than the list with which the volume was mounted.
        let newest = accounts
            .list(namespace, name, RECHECK_AFTER, deadline)
            .await;
        judge(newest.map(|(list, _)| list))
    }

    /// Checks the policy for all objects, in the region and in the failover region.
    fn check_policy(&self, request: &Request, objects: &Objects) -> Result<(), MountError> {
        let policy = self.policy.current();
        if !policy.is_restricted() {
            return Ok(());
        }
        let namespace = &request.pod.namespace;
        if namespace.is_empty() {
            return Err(MountError::new(
                Reason::Invalid,
                "the request has no namespace: the CSIDriver object must set podInfoOnMount",
            ));
        }
        let class = ClassView {
            name: &request.class,
            parameters: &request.parameters,
        };
        let (region, project) = self.resolver.location(class)?;
        let failover = class.region("failoverRegion")?;
        let places = [
            Some(Place::new(region.as_str(), project.as_deref())),
            // A project belongs to one region.
            failover
                .as_ref()
                .map(|region| Place::new(region.as_str(), None)),
        ];
        let denials: Vec<String> = (places.into_iter().flatten())
            .filter_map(|place| {
                let secrets = objects.list.iter().map(|object| object.name.as_str());
                policy.check(namespace, place, secrets).err()
            })
            .map(|denial| denial.to_string())
            .collect();
        if denials.is_empty() {
            return Ok(());
        }
        Err(MountError::new(
            Reason::Denied,
            format!(
                "SecretProviderClass {:?}, {}",
                request.class,
                denials.join("; ")
            ),
        ))
    }

    /// Checks what does not depend on the list of objects, so that no list is parsed of a pod without a class or a
    /// ServiceAccount, or that overrides what it may not.
    ///
    /// # Errors
    /// [`Reason::Denied`] for an override; other reasons if the class or the ServiceAccount cannot be read.
    pub async fn admit<'a>(
        &self,
        request: &'a Request,
        max_age: Duration,
    ) -> Result<Admitted<'a>, MountError> {
        let Some((classes, accounts)) = &self.kube else {
            return match self.mode {
                AllowListMode::Off => Ok(Admitted(request)),
                AllowListMode::Required | AllowListMode::IfPresent => Err(MountError::new(
                    Reason::Internal,
                    "ServiceAccounts cannot be read without a connection to Kubernetes",
                )),
            };
        };
        check_overrides(classes, request).await?;
        if self.mode != AllowListMode::Off {
            let pod = &request.pod;
            check_account(request)?;
            accounts
                .list(
                    &pod.namespace,
                    &pod.service_account,
                    max_age,
                    request.deadline,
                )
                .await
                .map_err(from_kube)?;
        }
        Ok(Admitted(request))
    }

    async fn check_list(
        &self,
        accounts: &ServiceAccounts,
        request: &Request,
        objects: &Objects,
        mut max_age: Duration,
    ) -> Result<(), MountError> {
        let pod = &request.pod;
        let secrets: Vec<_> = objects.list.iter().map(|o| o.name.as_str()).collect();
        loop {
            let (list, age) = accounts
                .list(
                    &pod.namespace,
                    &pod.service_account,
                    max_age,
                    request.deadline,
                )
                .await
                .map_err(from_kube)?;
            match self.check_names(&list, pod, &request.class, &secrets) {
                Err(_) if age > RECHECK_AFTER => max_age = Duration::ZERO,
                verdict => return verdict,
            }
        }
    }

    fn check_names(
        &self,
        list: &AllowList,
        pod: &PodRef,
        class: &str,
        secrets: &[&str],
    ) -> Result<(), MountError> {
        let account = format!("{}/{}", pod.namespace, pod.service_account);
        let names = match list {
            AllowList::Names(names) => names,
            AllowList::Absent if self.mode == AllowListMode::IfPresent => return Ok(()),
            AllowList::Absent => {
                let wanted = secrets.iter().map(|name| format!("{name:?}"));
                let wanted = joined(wanted, ",", MAX_NAMED, MAX_NAMES);
                return Err(MountError::new(
                    Reason::Denied,
                    format!(
                        "ServiceAccount {account} has no annotation {ANNOTATION}: set it to the list of \
                         secrets that its pods may mount, here [{wanted}]"
                    ),
                ));
            }
            AllowList::Invalid(why) => {
                let message = format!("ServiceAccount {account}, annotation {ANNOTATION}: {why}");
                return Err(MountError::new(Reason::Denied, message));
            }
        };
        let unlisted: Vec<_> = secrets.iter().filter(|n| !names.contains(**n)).collect();
        if unlisted.is_empty() {
            return Ok(());
        }
        Err(MountError::new(
            Reason::Denied,
            format!(
                "ServiceAccount {account} does not list {} in its annotation {ANNOTATION}: add {} \
                 there, or remove {} from SecretProviderClass {:?}",
                joined(
                    unlisted.iter().map(|n| format!("{n:?}")),
                    ", ",
                    MAX_NAMED,
                    MAX_NAMES
                ),
                if unlisted.len() == 1 { "it" } else { "them" },
                if unlisted.len() == 1 { "it" } else { "them" },
                class
            ),
        ))
    }
}

fn check_account(request: &Request) -> Result<(), MountError> {
    if request.pod.service_account.is_empty() || request.pod.namespace.is_empty() {
        return Err(MountError::new(
            Reason::Invalid,
            "the request has no ServiceAccount: the CSIDriver object must set podInfoOnMount",
        ));
    }
    Ok(())
}

/// Rejects protected parameters that differ from the SecretProviderClass: the driver copies a pod's
/// volumeAttributes over them.
async fn check_overrides(classes: &Classes, request: &Request) -> Result<(), MountError> {
    let (namespace, name) = (&request.pod.namespace, &request.class);
    if name.is_empty() {
        return Err(MountError::new(
            Reason::Invalid,
            "the request has no SecretProviderClass",
        ));
    }
    let empty = BTreeMap::new();
    if let Some(class) = classes.observed(namespace, name)
        && differing(request, class.spec.parameters.as_ref().unwrap_or(&empty)).is_none()
    {
        return Ok(());
    }
    // The driver may have observed an edit, or a new class, before this watch.
    let class = classes
        .read(namespace, name, request.deadline)
        .await
        .map_err(from_kube)?;
    let Some(key) = differing(request, class.spec.parameters.as_ref().unwrap_or(&empty)) else {
        return Ok(());
    };
    Err(MountError::new(
        Reason::Denied,
        format!(
            "parameter {key} differs from SecretProviderClass {namespace}/{name}: either the pod \
             overrides it in volumeAttributes, which is not allowed (set it in the \
             SecretProviderClass), or the class was edited and the driver has not observed that yet (the \
             next attempt will succeed)"
        ),
    ))
}

/// The first protected parameter whose value differs from that of the class.
fn differing(request: &Request, class: &BTreeMap<String, String>) -> Option<&'static str> {
    (PROTECTED.iter().zip(&request.parameters.protected))
        .find(|(key, value)| value.as_ref() != class.get(**key))
        .map(|(key, _)| *key)
}

fn from_kube(error: KubeError) -> MountError {
    let reason = match error {
        KubeError::NotFound(_) => Reason::NotFound,
        KubeError::Forbidden { .. } | KubeError::Unauthorized { .. } => Reason::Precondition,
        KubeError::Failed { .. } => Reason::Internal,
    };
    MountError::new(reason, error.to_string())
}
