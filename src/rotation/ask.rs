//! One question about one secret: where do `latest` and its stages stand?

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::plan::Followed;
use crate::cloud::{ApiError, Caller, Cloud, Kind, VersionMetadata};
use crate::store::Found;

/// The stage that `latest` may mean.
const CURRENT: &str = "SYSCURRENT";

/// Which calls the identity may make; each one is worse than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// ListSecretVersions: everything in one call, and no value leaves CSMS.
    #[default]
    List,
    /// ShowSecretStage: a call for each stage; for `latest` only a move of `SYSCURRENT` is seen.
    Stages,
    /// ShowSecretVersion: the value comes along, and is thrown away. Stages cannot be asked for.
    Values,
}

/// What was found, for each of those followed.
pub(super) type Answers = BTreeMap<Followed, Result<Found, ApiError>>;

/// Asks, beginning with `way`; where a right is missing goes on with the next one, and returns the
/// one that led to the answers.
pub(super) async fn ask(
    cloud: &Cloud,
    caller: &Caller,
    secret: &str,
    followed: &[Followed],
    mut way: Way,
    deadline: Instant,
) -> (Answers, Way) {
    if way == Way::List {
        match cloud.list_secret_versions(caller, secret, deadline).await {
            Ok(versions) => {
                let found = |one: &Followed| (one.clone(), in_list(&versions, one.as_deref()));
                return (followed.iter().map(found).collect(), way);
            }
            Err(error) if error.kind == Kind::Denied => way = Way::Stages,
            Err(error) => {
                let failed = |one: &Followed| (one.clone(), Err(error.clone()));
                return (followed.iter().map(failed).collect(), way);
            }
        }
    }
    let mut answers = Answers::new();
    for one in followed {
        let mut answer = match (way, one) {
            (Way::Values, None) => latest(cloud, caller, secret, deadline).await,
            _ => of_stage(cloud, caller, secret, one.as_deref(), deadline).await,
        };
        if one.is_none()
            && way == Way::Stages
            && matches!(&answer, Err(error) if error.kind == Kind::Denied)
        {
            way = Way::Values;
            answer = latest(cloud, caller, secret, deadline).await;
        }
        answers.insert(one.clone(), answer);
    }
    (answers, way)
}

fn in_list(versions: &[VersionMetadata], stage: Option<&str>) -> Result<Found, ApiError> {
    let holder = |stage: &str| {
        versions
            .iter()
            .find(|v| v.stages.iter().any(|s| s == stage))
    };
    let number = |v: &&VersionMetadata| v.id.strip_prefix('v')?.parse::<u64>().ok();
    let missing = |what: &str| ApiError::local("ListSecretVersions", Kind::NotFound, what);
    match stage {
        None => {
            let newest = versions.iter().max_by_key(number);
            let newest = newest.ok_or_else(|| missing("the secret has no version"))?;
            Ok(Found {
                version: newest.id.clone(),
                current: holder(CURRENT).map(|v| v.id.clone()),
                created: Some(newest.create_time),
            })
        }
        Some(stage) => {
            let holder = holder(stage).ok_or_else(|| missing("no version holds the stage"))?;
            Ok(Found {
                version: holder.id.clone(),
                current: None,
                created: Some(holder.create_time),
            })
        }
    }
}

async fn of_stage(
    cloud: &Cloud,
    caller: &Caller,
    secret: &str,
    stage: Option<&str>,
    deadline: Instant,
) -> Result<Found, ApiError> {
    let name = stage.unwrap_or(CURRENT);
    let found = cloud
        .show_secret_stage(caller, secret, name, deadline)
        .await?;
    Ok(Found {
        current: stage.is_none().then(|| found.version_id.clone()),
        version: found.version_id,
        created: None,
    })
}

async fn latest(
    cloud: &Cloud,
    caller: &Caller,
    secret: &str,
    deadline: Instant,
) -> Result<Found, ApiError> {
    let found = cloud
        .show_secret_version(caller, secret, "latest", deadline)
        .await?;
    Ok(Found {
        version: found.metadata.id,
        current: None,
        created: Some(found.metadata.create_time),
    })
}
