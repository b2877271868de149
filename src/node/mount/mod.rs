//! The pipeline of a Mount, one file per step:
//!
//! | step | file | does |
//! |---|---|---|
//! | 1 request | [`request`], [`kubelet_root`] | parses the driver's message, within limits; checks the target path |
//! | 2 objects | `objects` | parses and checks the `objects` list of the class |
//! | 3 authorize | [`authorize`] | checks the ServiceAccount's list and the policy, and refuses overrides by the pod |
//! | 4 resolve | [`resolve`](mod@resolve) | determines region, project, credentials and cache keys |
//! | 5 fetch | [`fetch`](mod@fetch) | gets the versions through the cache |
//! | 6 select | [`select`](mod@select) | extracts the contents of files: JMESPath, keys, encodings |
//! | 7 response | `response` | builds the response: files, modes and file versions, sorted by path |
//!
//! [`large`] runs steps 6 and 7, and lets large Mounts wait for each other.
//!
//! A Mount is all or nothing: one failed object fails the Mount, and the error lists all failed objects.
//! [`service`] is the gRPC service around the pipeline. [`revocation`] repeats step 3 for mounted volumes when
//! nobody calls Mount.

pub mod authorize;
pub mod error;
pub mod fetch;
mod json_numbers;
pub mod kubelet_root;
pub mod large;
mod objects;
pub mod request;
pub mod resolve;
mod response;
pub mod revocation;
pub mod select;
pub mod service;

use std::sync::Arc;
use std::time::Duration;

use crate::cache::SecretCache;
use crate::class::resolver::Resolver;
use crate::node::volumes::{MountChange, MountRecord, Volumes, freshness};
use crate::proto::MountResponse;
use authorize::Authorizer;
use error::MountError;
use fetch::{FetchedObject, fetch};
use kubelet_root::KubeletRoot;
use large::{LargeMounts, Room};
use objects::ObjectsCache;
use request::Request;
use resolve::resolve;

/// The steps of a Mount, and what they depend on.
#[derive(Debug)]
pub struct Pipeline {
    kubelet_root: Option<KubeletRoot>,
    objects: ObjectsCache,
    authorizer: Authorizer,
    resolver: Arc<Resolver>,
    cache: SecretCache,
    volumes: Arc<Volumes>,
    large: LargeMounts,
    /// `rotation_poll_interval`, for classes that set none.
    interval: Duration,
}

/// A Mount that succeeded.
#[derive(Debug)]
struct Mounted {
    response: MountResponse,
    change: MountChange,
    fetched: Vec<FetchedObject>,
    /// What the response takes up, if it is large.
    room: Option<Room>,
}

impl Pipeline {
    /// Assembles the pipeline; `interval` is `rotation_poll_interval`. Without `kubelet_root`, target paths are not
    /// checked.
    pub fn new(
        kubelet_root: Option<KubeletRoot>,
        authorizer: Authorizer,
        resolver: Arc<Resolver>,
        cache: SecretCache,
        volumes: Arc<Volumes>,
        interval: Duration,
    ) -> Self {
        Self {
            kubelet_root,
            objects: ObjectsCache::default(),
            authorizer,
            resolver,
            cache,
            volumes,
            large: LargeMounts::default(),
            interval,
        }
    }

    /// Steps 2 to 7, for a parsed request.
    async fn mount(&self, request: &Request) -> Result<Mounted, MountError> {
        if let Some(root) = &self.kubelet_root {
            root.check(&request.target_path).await?;
        }
        let id = request.volume_id();
        self.volumes.note_request(&id);
        let mounted = self.volumes.get(&id);
        let parameters = &request.parameters;

        let max_age = freshness::authorization(mounted.as_deref(), self.interval);
        let admitted = self.authorizer.admit(request, max_age).await?;

        let (objects, _share) = self.objects.get(request).await?;

        let authorized = self
            .authorizer
            .authorize(admitted, objects, max_age)
            .await?;

        let settings = self.volumes.settings(parameters);
        let same = mounted.as_deref().filter(|m| m.settings == settings);
        let plan = resolve(&self.resolver, &authorized, same, self.interval)?;

        let interval = plan.interval;
        let max_ages = freshness::versions(mounted.as_deref(), &plan.keys, interval, &self.cache);
        let fetched = fetch(&plan, &max_ages, same, &self.cache).await?;

        let (namespace, mode) = (&request.pod.namespace, request.default_mode);
        let (response, fetched, room) = self
            .large
            .respond(namespace, fetched, mode, request.deadline)
            .await?;

        let change = self.volumes.record_mount(
            id,
            MountRecord {
                pod: request.pod.clone(),
                settings,
                delivered: fetched
                    .iter()
                    .map(|item| item.delivered(&plan.caller))
                    .collect(),
                publish_secret: request.publish_secret.clone(),
                keys: plan.keys,
                caller: plan.caller,
                interval,
            },
        );
        Ok(Mounted {
            response,
            change,
            fetched,
            room,
        })
    }
}
