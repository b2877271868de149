//! Follows pods to their ServiceAccounts and SecretProviderClasses, across files.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Severity};
use super::manifest::PodManifest;
use crate::class::suggestion::nearest;
use crate::kube::service_accounts::ANNOTATION;
use crate::util::text::joined;

/// Namespace and name.
type ObjectName = (String, String);

/// Maximum number of secrets that a finding names.
const MAX_NAMED: usize = 20;

/// What the manifests say about who mounts what.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    accounts: BTreeMap<ObjectName, Account>,
    classes: BTreeMap<ObjectName, Class>,
    pods: Vec<PodMount>,
}

/// A ServiceAccount.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) file: String,
    /// The line of the annotation, else of the object.
    pub(super) line: u64,
    pub(super) list: List,
}

/// The annotation of a ServiceAccount.
#[derive(Debug)]
pub(super) enum List {
    Absent,
    /// Reported where it is read.
    Invalid,
    Names(BTreeSet<String>),
}

/// A SecretProviderClass of this provider, or of another if it has no secrets.
#[derive(Debug, Default)]
pub(super) struct Class {
    pub(super) secrets: Vec<NamedSecret>,
}

/// A secret that a class names.
#[derive(Clone, Debug)]
pub(super) struct NamedSecret {
    pub(super) file: String,
    pub(super) line: u64,
    /// Kind and name of the object, then the field.
    pub(super) place: String,
    pub(super) secret: String,
}

/// A volume of a pod.
#[derive(Debug)]
struct PodMount {
    file: String,
    line: u64,
    /// Kind and name.
    pod: String,
    account: ObjectName,
    class: ObjectName,
    /// The names of the pod's own list, which replaces that of the class.
    secrets: Option<Vec<String>>,
}

impl Mounts {
    pub(super) fn add_account(&mut self, namespace: &str, name: &str, account: Account) {
        let name = (namespace.to_owned(), name.to_owned());
        self.accounts.insert(name, account);
    }

    pub(super) fn add_class(&mut self, namespace: &str, name: &str, class: Class) {
        let name = (namespace.to_owned(), name.to_owned());
        self.classes.insert(name, class);
    }

    /// Adds a volume of a pod; `secrets` are those of its own list, if it has one.
    pub(super) fn add_pod(
        &mut self,
        file: &str,
        line: u64,
        pod: &PodManifest,
        class: &str,
        secrets: Option<Vec<String>>,
    ) {
        let header = &pod.header;
        self.pods.push(PodMount {
            file: file.to_owned(),
            line,
            pod: format!("{} {}", header.kind.value, header.name),
            account: (header.namespace.clone(), pod.account.clone()),
            class: (header.namespace.clone(), class.to_owned()),
            secrets,
        });
    }

    /// What does not fit together.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut followed = BTreeSet::new();
        for pod in &self.pods {
            self.references(pod, &mut found);
            self.lists(pod, &mut followed, &mut found);
        }
        self.unlisted(&followed, &mut found);
        found
    }

    /// The class and the ServiceAccount that a pod names, if the manifests have them elsewhere only.
    fn references(&self, pod: &PodMount, found: &mut Vec<Finding>) {
        let mut add = |severity, field: &str, reason: String| {
            found.push(Finding {
                file: pod.file.clone(),
                line: pod.line,
                severity,
                place: format!("{}, {field}", pod.pod),
                reason,
            });
        };
        let (namespace, name) = &pod.class;
        if !self.classes.contains_key(&pod.class) {
            let field = "secretProviderClass";
            let here = self.classes.keys().filter(|(n, _)| n == namespace);
            let here: Vec<&str> = here.map(|(_, name)| name.as_str()).collect();
            let elsewhere = self.classes.keys().find(|(_, other)| other == name);
            if let Some((other, _)) = elsewhere {
                add(
                    Severity::Error,
                    field,
                    format!(
                        "{name:?} is in namespace {other}, and the pod in {namespace}: create the class in the \
                         namespace of the pod"
                    ),
                );
            } else if let Some(near) = nearest(name, &here) {
                let reason = format!("these files have no class {name:?}; did you mean {near}?");
                add(Severity::Warning, field, reason);
            }
        }
        let (namespace, name) = &pod.account;
        let elsewhere = self.accounts.keys().find(|(_, other)| other == name);
        if let (false, Some((other, _))) = (self.accounts.contains_key(&pod.account), elsewhere)
            && name != "default"
        {
            add(
                Severity::Error,
                "serviceAccountName",
                format!(
                    "{name:?} is in namespace {other}, and the pod in {namespace}: create it in the namespace of \
                     the pod"
                ),
            );
        }
    }

    /// Whether the ServiceAccount of a pod lists the secrets that it mounts.
    fn lists(&self, pod: &PodMount, followed: &mut BTreeSet<ObjectName>, found: &mut Vec<Finding>) {
        let (Some(class), Some(account)) = (
            self.classes.get(&pod.class),
            self.accounts.get(&pod.account),
        ) else {
            return;
        };
        followed.insert(pod.class.clone());
        let of_class = || {
            class
                .secrets
                .iter()
                .map(|named| named.secret.clone())
                .collect()
        };
        let mounted: Vec<String> = pod.secrets.clone().unwrap_or_else(of_class);
        let (class, (namespace, name)) = (&pod.class.1, &pod.account);
        let mut add = |reason: String| {
            let finding = Finding {
                file: account.file.clone(),
                line: account.line,
                severity: Severity::Error,
                place: format!("ServiceAccount {namespace}/{name}, {ANNOTATION}"),
                reason,
            };
            if !found.contains(&finding) {
                found.push(finding);
            }
        };
        let quoted = |names: &[&String]| {
            let names = names.iter().map(|name| format!("{name:?}"));
            joined(names, ", ", MAX_NAMED, 2048)
        };
        match &account.list {
            List::Invalid => {}
            List::Absent if mounted.is_empty() => {}
            List::Absent => {
                let all: Vec<&String> = mounted.iter().collect();
                add(format!(
                    "missing: {} mounts SecretProviderClass {class}; set the annotation to '[{}]'",
                    pod.pod,
                    quoted(&all)
                ));
            }
            List::Names(names) => {
                let lacking: Vec<&String> = mounted
                    .iter()
                    .filter(|name| !names.contains(*name))
                    .collect();
                if !lacking.is_empty() {
                    add(format!(
                        "does not list {}, which {} mounts through SecretProviderClass {class}: add it, or \
                         remove it from the class",
                        quoted(&lacking),
                        pod.pod
                    ));
                }
            }
        }
    }

    /// Of classes that no pod mounts: secrets that no ServiceAccount of the namespace lists, if the manifests have
    /// lists of that namespace.
    fn unlisted(&self, followed: &BTreeSet<ObjectName>, found: &mut Vec<Finding>) {
        let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((namespace, _), account) in &self.accounts {
            if let List::Names(names) = &account.list {
                let all = listed.entry(namespace).or_default();
                all.extend(names.iter().map(String::as_str));
            }
        }
        for (name, class) in &self.classes {
            let Some(names) = listed.get(name.0.as_str()) else {
                continue;
            };
            if followed.contains(name) {
                continue;
            }
            let lacking = class
                .secrets
                .iter()
                .filter(|named| !names.contains(&*named.secret));
            found.extend(lacking.map(|named| Finding {
                file: named.file.clone(),
                line: named.line,
                severity: Severity::Warning,
                place: named.place.clone(),
                reason: format!(
                    "no ServiceAccount in these files lists {:?} in its annotation {ANNOTATION}",
                    named.secret
                ),
            }));
        }
    }
}
