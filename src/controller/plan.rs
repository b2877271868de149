//! Plans which secrets to poll: those that pods follow under the provider's own identity, according to the
//! SecretProviderClasses and to the driver's SecretProviderClassPodStatuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::class::objects::Objects;
use crate::class::parameters::Parameters;
use crate::class::resolver::{ClassView, PUBLISH_SECRET, Resolver};
use crate::cloud::{Caller, VersionSelector};
use crate::kube::{ClassMounts, EventTarget, SecretProviderClass};

/// A secret. One poll resolves its `latest` and its stages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SecretId {
    pub(super) region: String,
    pub(super) project: Option<String>,
    pub(super) secret: String,
}

/// What pods follow of a secret: `None` for `latest`, or the name of a stage.
pub(super) type Followed = Option<String>;

/// A class, for Events.
#[derive(Clone, Debug)]
pub(super) struct ClassRef {
    namespace: String,
    name: String,
    uid: String,
}

impl ClassRef {
    fn of(class: &SecretProviderClass) -> Self {
        Self {
            namespace: class.namespace().unwrap_or_default(),
            name: class.name_any(),
            uid: class.uid().unwrap_or_default(),
        }
    }

    pub(super) fn event_target(&self) -> EventTarget<'_> {
        EventTarget {
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
        }
    }
}

/// A secret to poll.
#[derive(Clone, Debug)]
pub(super) struct PlannedSecret {
    pub(super) caller: Caller,
    /// The shortest interval of the classes that name it.
    pub(super) interval: Duration,
    /// Number of pods by what they follow.
    pub(super) followed: BTreeMap<Followed, u32>,
    /// Number of nodes with such pods; a node counts once for each class.
    pub(super) nodes: u32,
    /// The classes that name it.
    pub(super) classes: Vec<ClassRef>,
}

/// A class that no pod can mount as it is.
#[derive(Clone, Debug)]
pub(super) struct InvalidClass {
    pub(super) class: ClassRef,
    pub(super) why: String,
}

/// The secrets that pods of a class follow.
struct ClassPlan {
    caller: Caller,
    interval: Option<Duration>,
    followed: Vec<(String, Followed)>,
}

/// The resourceVersion of a class, and its plan; `None` if the class has nothing to poll.
type ParsedClass = (Option<String>, Option<Arc<ClassPlan>>);

/// Makes plans; caches parsed classes until they change.
#[derive(Default)]
pub(super) struct Planner {
    parsed: HashMap<String, ParsedClass>,
}

impl Planner {
    /// The plan, and the classes that became invalid since the last one.
    pub(super) fn plan(
        &mut self,
        classes: &[Arc<SecretProviderClass>],
        mounts: &HashMap<(String, String), ClassMounts>,
        resolver: &Resolver,
        provider_names: &[String],
        interval: Duration,
    ) -> (BTreeMap<SecretId, PlannedSecret>, Vec<InvalidClass>) {
        let mut plan: BTreeMap<SecretId, PlannedSecret> = BTreeMap::new();
        let mut invalid = Vec::new();
        let mut parsed = HashMap::new();
        for class in classes {
            let provider = class.spec.provider.as_deref().unwrap_or_default();
            if !provider_names.iter().any(|name| name == provider) {
                continue;
            }
            let reference = ClassRef::of(class);
            let version = class.metadata.resource_version.clone();
            let known = self.parsed.remove(&reference.uid);
            let class_plan = match known.filter(|(seen, _)| *seen == version) {
                Some((_, class_plan)) => class_plan,
                None => match parse(class, resolver) {
                    Ok(class_plan) => class_plan.map(Arc::new),
                    Err(why) => {
                        let class = reference.clone();
                        invalid.push(InvalidClass { class, why });
                        None
                    }
                },
            };
            parsed.insert(reference.uid.clone(), (version, class_plan.clone()));
            let name = (reference.namespace.clone(), reference.name.clone());
            if let (Some(class_plan), Some(mounts)) = (class_plan, mounts.get(&name)) {
                add(&mut plan, &class_plan, *mounts, &reference, interval);
            }
        }
        self.parsed = parsed;
        (plan, invalid)
    }
}

/// Adds the secrets of a class to the plan.
fn add(
    plan: &mut BTreeMap<SecretId, PlannedSecret>,
    class_plan: &ClassPlan,
    mounts: ClassMounts,
    class: &ClassRef,
    interval: Duration,
) {
    let interval = class_plan.interval.unwrap_or(interval);
    for (secret, followed) in &class_plan.followed {
        let id = SecretId {
            region: class_plan.caller.region.as_str().to_owned(),
            project: class_plan.caller.project.clone(),
            secret: secret.clone(),
        };
        let planned = plan.entry(id).or_insert_with(|| PlannedSecret {
            caller: class_plan.caller.clone(),
            interval,
            followed: BTreeMap::new(),
            nodes: 0,
            classes: Vec::new(),
        });
        planned.interval = planned.interval.min(interval);
        *planned.followed.entry(followed.clone()).or_default() += mounts.pods;
        planned.nodes += mounts.nodes;
        planned.classes.push(class.clone());
    }
}

/// Parses a class. Returns `None` if its pods bring their own keys: the nodes of these pods poll.
fn parse(class: &SecretProviderClass, resolver: &Resolver) -> Result<Option<ClassPlan>, String> {
    let empty = BTreeMap::new();
    let values = class.spec.parameters.as_ref().unwrap_or(&empty);
    let parameters = Parameters::of_class(values, &empty);
    let name = class.name_any();
    let view = ClassView {
        name: &name,
        parameters: &parameters,
    };
    let Some(objects) = &parameters.objects else {
        return Err("it has no parameter objects: set it to a YAML list of secrets".to_owned());
    };
    let objects = Objects::parse(objects).map_err(|problems| {
        let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
        list.join("; ")
    })?;
    let interval = view.interval().map_err(|error| error.message)?;
    if parameters.protected("credentials") == Some(PUBLISH_SECRET) {
        return Ok(None);
    }
    let caller = resolver.caller(view, None).map_err(|error| error.message)?;
    let followed = objects.list.iter().filter_map(|object| {
        let followed = match &object.selector {
            VersionSelector::Latest => None,
            VersionSelector::Stage(stage) => Some(stage.clone()),
            VersionSelector::Version(_) => return None,
        };
        Some((object.name.clone(), followed))
    });
    Ok(Some(ClassPlan {
        caller,
        interval,
        followed: followed.collect(),
    }))
}
