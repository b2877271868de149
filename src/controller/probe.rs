//! Resolves `latest` and stages of one secret to versions, with the best call that the identity's
//! permissions allow.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::plan::Followed;
use crate::cache::ResolvedVersion;
use crate::cloud::{ApiError, Caller, Csms, ErrorKind, VersionMetadata, version_number};

/// The stage that `latest` may stand for.
const CURRENT: &str = "SYSCURRENT";

/// The calls to make, depending on the permissions of the identity, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strategy {
    /// ListSecretVersions: resolves everything in one call, and no value leaves CSMS.
    #[default]
    List,
    /// ShowSecretStage: one call per stage. Of the moves of `latest`, it shows only those of `SYSCURRENT`.
    Stages,
    /// ShowSecretVersion: resolves only `latest`. CSMS returns the value too, and the leader discards it.
    Values,
}

/// The result for each followed version.
pub(super) type Resolutions = BTreeMap<Followed, Result<ResolvedVersion, ApiError>>;

/// Resolves all followed versions, starting with `strategy`. If a permission is missing, continues with the
/// next strategy. Returns the strategy that led to the result.
pub(super) async fn probe(
    csms: &Csms,
    caller: &Caller,
    secret: &str,
    followed: &[Followed],
    mut strategy: Strategy,
    deadline: Instant,
) -> (Resolutions, Strategy) {
    if strategy == Strategy::List {
        match csms.list_secret_versions(caller, secret, deadline).await {
            Ok(versions) => {
                let resolved = |one: &Followed| (one.clone(), from_list(&versions, one.as_deref()));
                return (followed.iter().map(resolved).collect(), strategy);
            }
            Err(error) if error.kind == ErrorKind::Denied => strategy = Strategy::Stages,
            Err(error) => {
                let failed = |one: &Followed| (one.clone(), Err(error.clone()));
                return (followed.iter().map(failed).collect(), strategy);
            }
        }
    }
    let mut resolutions = Resolutions::new();
    for one in followed {
        let mut resolution = match (strategy, one) {
            (Strategy::Values, None) => from_value(csms, caller, secret, deadline).await,
            _ => from_stage(csms, caller, secret, one.as_deref(), deadline).await,
        };
        if one.is_none()
            && strategy == Strategy::Stages
            && matches!(&resolution, Err(error) if error.kind == ErrorKind::Denied)
        {
            strategy = Strategy::Values;
            resolution = from_value(csms, caller, secret, deadline).await;
        }
        resolutions.insert(one.clone(), resolution);
    }
    (resolutions, strategy)
}

fn from_list(
    versions: &[VersionMetadata],
    stage: Option<&str>,
) -> Result<ResolvedVersion, ApiError> {
    let holder = |stage: &str| {
        versions
            .iter()
            .find(|v| v.stages.iter().any(|s| s == stage))
    };
    let number = |v: &&VersionMetadata| version_number(&v.id);
    let missing = |what: &str| ApiError::local("ListSecretVersions", ErrorKind::NotFound, what);
    match stage {
        None => {
            let newest = versions.iter().max_by_key(number);
            // Every secret has a version, so an empty list says nothing.
            let newest = newest.ok_or_else(|| {
                let why = "the response does not match the API: the list of versions is empty";
                ApiError::local("ListSecretVersions", ErrorKind::Malformed, why)
            })?;
            Ok(ResolvedVersion {
                version: newest.id.clone(),
                current: holder(CURRENT).map(|v| v.id.clone()),
                created: Some(newest.create_time),
            })
        }
        Some(stage) => {
            if versions.is_empty() {
                return from_list(versions, None);
            }
            let holder = holder(stage).ok_or_else(|| missing("no version holds the stage"))?;
            Ok(ResolvedVersion {
                version: holder.id.clone(),
                current: None,
                created: Some(holder.create_time),
            })
        }
    }
}

async fn from_stage(
    csms: &Csms,
    caller: &Caller,
    secret: &str,
    stage: Option<&str>,
    deadline: Instant,
) -> Result<ResolvedVersion, ApiError> {
    let name = stage.unwrap_or(CURRENT);
    let found = csms
        .show_secret_stage(caller, secret, name, deadline)
        .await?;
    Ok(ResolvedVersion {
        current: stage.is_none().then(|| found.version_id.clone()),
        version: found.version_id,
        created: None,
    })
}

async fn from_value(
    csms: &Csms,
    caller: &Caller,
    secret: &str,
    deadline: Instant,
) -> Result<ResolvedVersion, ApiError> {
    let found = csms
        .show_secret_version(caller, secret, "latest", deadline)
        .await?;
    Ok(ResolvedVersion {
        version: found.metadata.id,
        current: None,
        created: Some(found.metadata.create_time),
    })
}
