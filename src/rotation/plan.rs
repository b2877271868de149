//! What is to be asked for: what pods have mounted with `latest` or a stage under the provider's
//! own identity, by SecretProviderClasses and the driver's records of who mounted them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::cloud::Caller;
use crate::kube::SecretProviderClass;
use crate::kube::usage::Users;
use crate::provider::parameters::Parameters;
use crate::provider::resolve::{Class, PUBLISH_SECRET, Resolver};
use crate::provider::spec::Spec;
use crate::store::Selector;

/// One secret: one question answers for `latest` and all stages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SecretId {
    pub(super) region: String,
    pub(super) project: Option<String>,
    pub(super) secret: String,
}

/// `latest`, or the name of a stage.
pub(super) type Followed = Option<String>;

/// Namespace, name and UID.
pub(super) type ClassRef = (String, String, String);

/// Why a secret is asked for, and how.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) caller: Caller,
    /// The shortest of those who want it.
    pub(super) interval: Duration,
    /// Pods by what they follow.
    pub(super) followed: BTreeMap<Followed, u32>,
    /// Nodes with such pods, at most.
    pub(super) nodes: u32,
    /// The classes that name it.
    pub(super) classes: Vec<ClassRef>,
}

/// A class that no pod can mount as it is.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) class: ClassRef,
    pub(super) why: String,
}

/// What a class asks for.
struct Asks {
    caller: Caller,
    interval: Option<Duration>,
    followed: Vec<(String, Followed)>,
}

/// Keeps what was read of classes until they change.
#[derive(Default)]
pub(super) struct Planner {
    read: HashMap<String, (Option<String>, Option<Arc<Asks>>)>,
}

impl Planner {
    /// The plan, and the classes that were found wrong since the last one.
    pub(super) fn plan(
        &mut self,
        classes: &[Arc<SecretProviderClass>],
        usage: &HashMap<(String, String), Users>,
        resolver: &Resolver,
        names: &[String],
        interval: Duration,
    ) -> (BTreeMap<SecretId, Wanted>, Vec<Wrong>) {
        let mut plan: BTreeMap<SecretId, Wanted> = BTreeMap::new();
        let mut wrong = Vec::new();
        let mut read = HashMap::new();
        for class in classes {
            let provider = class.spec.provider.as_deref().unwrap_or_default();
            if !names.iter().any(|name| name == provider) {
                continue;
            }
            let reference = reference(class);
            let version = class.metadata.resource_version.clone();
            let known = self.read.remove(&reference.2);
            let asks = match known.filter(|(seen, _)| *seen == version) {
                Some((_, asks)) => asks,
                None => match asks(class, resolver) {
                    Ok(asks) => asks.map(Arc::new),
                    Err(why) => {
                        let class = reference.clone();
                        wrong.push(Wrong { class, why });
                        None
                    }
                },
            };
            read.insert(reference.2.clone(), (version, asks.clone()));
            let users = usage.get(&(reference.0.clone(), reference.1.clone()));
            if let (Some(asks), Some(users)) = (asks, users) {
                add(&mut plan, &asks, *users, &reference, interval);
            }
        }
        self.read = read;
        (plan, wrong)
    }
}

pub(super) fn reference(class: &SecretProviderClass) -> ClassRef {
    (
        class.namespace().unwrap_or_default(),
        class.name_any(),
        class.uid().unwrap_or_default(),
    )
}

fn add(
    plan: &mut BTreeMap<SecretId, Wanted>,
    asks: &Asks,
    users: Users,
    class: &ClassRef,
    interval: Duration,
) {
    let interval = asks.interval.unwrap_or(interval);
    for (secret, followed) in &asks.followed {
        let id = SecretId {
            region: asks.caller.region.as_str().to_owned(),
            project: asks.caller.project.clone(),
            secret: secret.clone(),
        };
        let wanted = plan.entry(id).or_insert_with(|| Wanted {
            caller: asks.caller.clone(),
            interval,
            followed: BTreeMap::new(),
            nodes: 0,
            classes: Vec::new(),
        });
        wanted.interval = wanted.interval.min(interval);
        *wanted.followed.entry(followed.clone()).or_default() += users.pods;
        wanted.nodes += users.nodes;
        wanted.classes.push(class.clone());
    }
}

/// `None` for a class whose pods bring keys of their own: their nodes ask.
fn asks(class: &SecretProviderClass, resolver: &Resolver) -> Result<Option<Asks>, String> {
    let empty = BTreeMap::new();
    let given = class.spec.parameters.as_ref().unwrap_or(&empty);
    let parameters = Parameters::of_class(given, &empty);
    let name = class.name_any();
    let view = Class {
        name: &name,
        parameters: &parameters,
    };
    let Some(objects) = &parameters.objects else {
        return Err("it has no parameter objects: give it a YAML list of secrets".to_owned());
    };
    let spec = Spec::parse(objects).map_err(|problems| {
        let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
        list.join("; ")
    })?;
    let interval = view.interval().map_err(|error| error.message)?;
    if parameters.protected("credentials") == Some(PUBLISH_SECRET) {
        return Ok(None);
    }
    let caller = resolver.caller(view, None).map_err(|error| error.message)?;
    let followed = spec.objects.iter().filter_map(|object| {
        let followed = match &object.selector {
            Selector::Latest => None,
            Selector::Stage(stage) => Some(stage.clone()),
            Selector::Version(_) => return None,
        };
        Some((object.name.clone(), followed))
    });
    Ok(Some(Asks {
        caller,
        interval,
        followed: followed.collect(),
    }))
}
