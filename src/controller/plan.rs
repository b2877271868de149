//! Plans which secrets to poll: those that pods follow with the provider's default credentials, according to the
//! SecretProviderClasses, to the driver's SecretProviderClassPodStatuses, and to the lists of ServiceAccounts.
//!
//! A class may name anything, also what its pods may not mount. Such secrets are not polled, because what comes
//! of it would tell the namespace whether they exist.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::class::objects::Objects;
use crate::class::parameters::Parameters;
use crate::class::resolver::{ClassView, PUBLISH_SECRET, Resolver};
use crate::cloud::{Caller, Turn, VersionSelector};
use crate::kube::{AllowLists, ClassMounts, EventTarget, SecretProviderClass};
use crate::policy::{Place, Policy};
use crate::util::budgets::Budgets;

/// Secrets that are polled for one namespace; a stage that no other namespace follows counts as one more. A project
/// has 200 secrets by default.
const MAX_SECRETS_PER_NAMESPACE: usize = 1000;
/// Stages of a secret that are followed for one namespace, as many as a secret has. Source: CSMS, "Constraints".
const MAX_STAGES: u32 = 12;
/// Classes of a namespace that get Events about a secret.
const MAX_CLASSES: u32 = 4;
/// Bytes of `objects` that are parsed for one namespace at once, and per second: somebody may edit a class
/// again and again.
const PARSED_AT_ONCE: f64 = 1024.0 * 1024.0;
const PARSED_PER_SECOND: f64 = 32.0 * 1024.0;

/// Why a class is not planned whose list was not kept.
const TOO_LARGE: &str = "its list of objects, or those of its namespace together, are too large to be followed: \
                         use fewer or smaller SecretProviderClasses";

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
    /// Classes that name it, for Events.
    pub(super) classes: Vec<Arc<ClassRef>>,
    /// The namespaces of these classes.
    pub(super) namespaces: BTreeMap<Arc<str>, Kept>,
}

/// What is kept for one namespace of a secret.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    stages: u32,
    classes: u32,
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

/// A parsed class.
struct ParsedClass {
    /// The resourceVersion that was parsed.
    version: Option<String>,
    /// `None` if the class has nothing to poll, or if no pod mounted it.
    plan: Option<ClassPlan>,
    /// Whether it is invalid, which has been reported.
    is_invalid: bool,
    /// Whether a pod mounted it.
    is_mounted: bool,
}

/// What a plan is made from.
pub(super) struct PlanInputs<'a> {
    /// The classes of all providers.
    pub(super) classes: &'a [Arc<SecretProviderClass>],
    /// The pods and nodes that mounted a class, by namespace and name.
    pub(super) mounts: &'a HashMap<(String, String), ClassMounts>,
    /// What the pods of a namespace may mount.
    pub(super) allow_lists: &'a AllowLists,
    /// What the operator allows the namespaces.
    pub(super) policy: &'a Policy,
    /// Resolves the region, project and credentials of a class.
    pub(super) resolver: &'a Resolver,
    /// The names of this provider.
    pub(super) provider_names: &'a [String],
    /// The interval of classes that set none.
    pub(super) interval: Duration,
}

/// Which secrets to poll.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) secrets: BTreeMap<SecretId, PlannedSecret>,
    /// The classes that became invalid since the last plan.
    pub(super) invalid: Vec<InvalidClass>,
    /// Whether a class has changed that has to wait for its namespace's turn to be parsed.
    pub(super) is_incomplete: bool,
}

/// Makes plans; caches parsed classes until they change.
pub(super) struct Planner {
    parsed: HashMap<String, ParsedClass>,
    shares: Budgets,
}

impl Planner {
    pub(super) fn new() -> Self {
        Self {
            parsed: HashMap::new(),
            shares: Budgets::new(PARSED_AT_ONCE, PARSED_PER_SECOND),
        }
    }

    /// Makes a plan. Classes that no pod has mounted are only checked, after the others.
    pub(super) fn plan(&mut self, inputs: &PlanInputs<'_>) -> Plan {
        let mut plan = Plan::default();
        let mut counts = HashMap::new();
        let mut parsed = HashMap::new();
        let is_own = |class: &&Arc<SecretProviderClass>| {
            let provider = class.spec.provider.as_deref().unwrap_or_default();
            inputs.provider_names.iter().any(|name| name == provider)
        };
        let own = inputs.classes.iter().filter(is_own);
        let (mounted, others): (Vec<_>, Vec<_>) = own
            .map(|class| (class, ClassRef::of(class)))
            .map(|(class, reference)| {
                let name = (reference.namespace.clone(), reference.name.clone());
                (class, reference, inputs.mounts.get(&name))
            })
            .partition(|(_, _, mounts)| mounts.is_some());
        for (class, reference, mounts) in mounted.into_iter().chain(others) {
            let is_mounted = mounts.is_some();
            let known = self.parsed.remove(&reference.uid);
            let current = self.parse(class, &reference, is_mounted, known, inputs, &mut plan);
            let Some(current) = current else { continue };
            if let (Some(class_plan), Some(mounts)) = (&current.plan, mounts) {
                let secrets = &mut plan.secrets;
                add(
                    secrets,
                    &mut counts,
                    class_plan,
                    *mounts,
                    &reference,
                    inputs,
                );
            }
            parsed.insert(reference.uid, current);
        }
        self.parsed = parsed;
        plan
    }

    /// Parses a class, unless it is `known` or its namespace has parsed too much lately: then it stays as it is
    /// for now.
    fn parse(
        &mut self,
        class: &SecretProviderClass,
        reference: &ClassRef,
        is_mounted: bool,
        known: Option<ParsedClass>,
        inputs: &PlanInputs<'_>,
        plan: &mut Plan,
    ) -> Option<ParsedClass> {
        let version = &class.metadata.resource_version;
        let same = known.as_ref().filter(|known| known.version == *version);
        if same.is_some_and(|known| known.is_mounted || known.is_invalid || !is_mounted) {
            return known;
        }
        let parameters = class.spec.parameters.as_ref();
        let objects = parameters.and_then(|parameters| parameters.get("objects"));
        let size = objects.map_or(0, String::len) as f64;
        if !self.shares.take(&reference.namespace, size) {
            plan.is_incomplete = true;
            return known;
        }
        let parsed = parse(class, inputs.resolver);
        let is_invalid = parsed.is_err();
        let class_plan = parsed.unwrap_or_else(|why| {
            let class = reference.clone();
            plan.invalid.push(InvalidClass { class, why });
            None
        });
        Some(ParsedClass {
            version: version.clone(),
            plan: class_plan.filter(|_| is_mounted),
            is_invalid,
            is_mounted,
        })
    }
}

/// Adds to the plan the secrets of a class that its namespace may use.
fn add(
    secrets: &mut BTreeMap<SecretId, PlannedSecret>,
    counts: &mut HashMap<Arc<str>, usize>,
    class_plan: &ClassPlan,
    mounts: ClassMounts,
    class: &ClassRef,
    inputs: &PlanInputs<'_>,
) {
    let interval = class_plan.interval.unwrap_or(inputs.interval);
    let names: HashSet<&str> = class_plan
        .followed
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let allowed = inputs
        .allow_lists
        .allowed(&class.namespace, names.into_iter());
    let caller = &class_plan.caller;
    let place = Place::new(caller.region.as_str(), caller.project.as_deref());
    let namespace: Arc<str> = Arc::from(class.namespace.as_str());
    let class = Arc::new(class.clone());
    let count = counts.entry(Arc::clone(&namespace)).or_default();
    for (secret, followed) in &class_plan.followed {
        if !allowed.contains(secret.as_str())
            || !inputs.policy.allows(&class.namespace, place, secret)
        {
            continue;
        }
        let id = SecretId {
            region: class_plan.caller.region.as_str().to_owned(),
            project: class_plan.caller.project.clone(),
            secret: secret.clone(),
        };
        let is_counted = secrets
            .get(&id)
            .is_some_and(|known| known.namespaces.contains_key(&namespace));
        if !is_counted && *count >= MAX_SECRETS_PER_NAMESPACE {
            continue;
        }
        *count += usize::from(!is_counted);
        let planned = secrets.entry(id).or_insert_with(|| PlannedSecret {
            caller: Caller {
                turn: Turn::default(),
                ..class_plan.caller.clone()
            },
            interval,
            followed: BTreeMap::new(),
            nodes: 0,
            classes: Vec::new(),
            namespaces: BTreeMap::new(),
        });
        planned.interval = planned.interval.min(interval);
        planned.nodes += mounts.nodes;
        if !is_counted {
            planned.caller.turn.join(&Turn::of(&namespace));
        }
        let kept = planned
            .namespaces
            .entry(Arc::clone(&namespace))
            .or_default();
        if kept.classes < MAX_CLASSES {
            kept.classes += 1;
            planned.classes.push(Arc::clone(&class));
        }
        if let Some(pods) = planned.followed.get_mut(followed) {
            *pods += mounts.pods;
            continue;
        }
        if followed.is_some() {
            if kept.stages >= MAX_STAGES || is_counted && *count >= MAX_SECRETS_PER_NAMESPACE {
                continue;
            }
            kept.stages += 1;
            *count += 1;
        }
        planned.followed.insert(followed.clone(), mounts.pods);
    }
}

/// Parses a class. Returns `None` if it chooses credentials: what these see may be another account, so the nodes
/// of its pods poll.
fn parse(class: &SecretProviderClass, resolver: &Resolver) -> Result<Option<ClassPlan>, String> {
    let empty = BTreeMap::new();
    let values = class.spec.parameters.as_ref().unwrap_or(&empty);
    let parameters = Parameters::of_class(values, &empty);
    let name = class.name_any();
    let view = ClassView {
        name: &name,
        parameters: &parameters,
    };
    if class.spec.objects_are_missing() {
        return Err(TOO_LARGE.to_owned());
    }
    let Some(objects) = &parameters.objects else {
        return Err("it has no parameter objects: set it to a YAML list of secrets".to_owned());
    };
    let objects = Objects::parse(objects).map_err(|problems| {
        let list: Vec<_> = problems.iter().map(ToString::to_string).collect();
        list.join("; ")
    })?;
    let interval = view.interval().map_err(|error| error.message)?;
    let credentials = parameters.protected("credentials");
    if credentials == Some(PUBLISH_SECRET) {
        return Ok(None);
    }
    let caller = resolver.caller(view, None).map_err(|error| error.message)?;
    if credentials.is_some() {
        return Ok(None);
    }
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
