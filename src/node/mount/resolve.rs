//! Step 4, resolve: determines the region, project, credentials and cache keys. Makes no network calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::authorize::Authorized;
use super::error::MountError;
use crate::cache::CacheKey;
use crate::class::objects::Object;
use crate::class::resolver::{ClassView, Resolver};
use crate::cloud::{Caller, Turn};
use crate::node::volumes::MountRecord;

/// What one Mount fetches.
#[derive(Debug)]
pub struct FetchPlan {
    /// The objects, in the order of the class.
    pub objects: Vec<Arc<Object>>,
    /// Their cache keys, in the same order.
    pub keys: Arc<[CacheKey]>,
    /// The region, project and credentials.
    pub caller: Arc<Caller>,
    /// The same in the failover region, which is used only during an outage of the primary region.
    pub failover: Option<Arc<Caller>>,
    /// The polling interval: that of the class, or of the provider.
    pub interval: Duration,
    /// When the response is due.
    pub deadline: Instant,
}

/// Resolves the region, project and identity of a request, and the keys of its objects. `same` is the last
/// Mount of the volume, if it was with the same parameters: its keys need not be built again.
/// `interval` is that of classes that set none.
///
/// # Errors
/// If the class is invalid, or a region or credentials are missing.
pub(super) fn resolve(
    resolver: &Resolver,
    authorized: &Authorized<'_>,
    same: Option<&MountRecord>,
    interval: Duration,
) -> Result<FetchPlan, MountError> {
    let Authorized { request, objects } = authorized;
    let class = ClassView {
        name: &request.class,
        parameters: &request.parameters,
    };
    let pod_credentials = request
        .publish_secret
        .as_ref()
        .map(|secret| secret.credentials());
    let turn = Turn::of(&request.pod.namespace);
    let caller = Arc::new(Caller {
        turn: turn.clone(),
        ..resolver.caller(class, pod_credentials)?
    });
    let failover = class.region("failoverRegion")?.map(|region| {
        Arc::new(Caller {
            region,
            project: None,
            credentials: caller.credentials.clone(),
            turn,
        })
    });
    let identity = caller.credentials.identity();
    let key =
        |object: &Arc<Object>| CacheKey::new(&caller, &identity, &object.name, &object.selector);
    let known = same.map(|record| &record.keys);
    let known = known.filter(|keys| keys.iter().all(|key| key.is_of(&caller, &identity)));
    Ok(FetchPlan {
        keys: known.map_or_else(|| objects.list.iter().map(key).collect(), Arc::clone),
        objects: objects.list.clone(),
        failover,
        interval: class.interval()?.unwrap_or(interval),
        deadline: request.deadline,
        caller,
    })
}
