//! Checks manifests offline, with the parser that a Mount uses.

use crate::class::objects::{Content, Objects, Problem};
use crate::class::parameters::{PARAMETERS, PROTECTED, UNSUPPORTED_IDENTITY, asks_for_identity};
use crate::class::resolver::check_parameter;
use crate::class::suggestion::nearest;
use crate::cloud::Region;
use crate::kube::service_accounts::{ANNOTATION, AllowList};
use crate::policy::PolicyProblem;
use crate::util::text::one_line;

mod finding;
mod manifest;
mod mounts;
mod node;
mod policy;
pub use finding::{Finding, Severity};
use manifest::{
    ACCOUNT, CLASS, ClassManifest, CsiVolume, Entry, Header, ManifestObject, PodManifest, Scalar,
    WORKLOADS,
};
use mounts::{Account, Class, List, Mounts, NamedSecret};
pub use policy::PolicyCheck;

/// Name of the Secrets Store CSI Driver.
const DRIVER: &str = "secrets-store.csi.k8s.io";
/// API version of SecretProviderClasses.
const CLASS_VERSION: &str = "secrets-store.csi.x-k8s.io/v1";
/// An earlier one, which the driver still serves.
const CLASS_VERSION_ALPHA: &str = "secrets-store.csi.x-k8s.io/v1alpha1";
/// The attribute that names the class.
const CLASS_ATTRIBUTE: &str = "secretProviderClass";
/// Longest name that a finding quotes, in characters.
const MAX_NAME: usize = 253;

/// What was checked, and the findings.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    /// SecretProviderClasses of this provider.
    pub classes: usize,
    /// ServiceAccounts.
    pub accounts: usize,
    /// Other objects, and classes of other providers.
    pub others: usize,
    /// The operator's policy, if classes are checked against one.
    pub policy: Option<PolicyCheck>,
    /// The files, in the order in which they were checked.
    files: Vec<String>,
    mounts: Mounts,
}

impl Report {
    /// Checks the text of one file. `providers` are the names of this provider.
    pub fn file(&mut self, file: &str, text: &str, providers: &[String]) {
        self.files.push(file.to_owned());
        for object in manifest::objects(text) {
            match object {
                Ok(ManifestObject::Class(class)) => {
                    self.header(file, &class.header, &[CLASS_VERSION, CLASS_VERSION_ALPHA]);
                    self.misplaced(file, &class.header, &class.header.annotations);
                    self.class(file, &class, providers);
                }
                Ok(ManifestObject::ServiceAccount(account)) => {
                    self.header(file, &account, &["v1"]);
                    self.account(file, &account);
                }
                Ok(ManifestObject::Pod(pod)) => self.pod(file, &pod),
                Ok(ManifestObject::Other(header)) => self.other(file, &header),
                Err(error) => {
                    let place = match error.field {
                        Some(field) => format!("YAML, {field}"),
                        None => "YAML".to_owned(),
                    };
                    self.find(file, error.line, Severity::Error, place, error.reason);
                }
            }
        }
    }

    /// Adds a file that cannot be read.
    pub fn unreadable(&mut self, file: &str, why: &str) {
        self.files.push(file.to_owned());
        let reason = format!("{file} cannot be read: {why}");
        self.find(file, 0, Severity::Error, "file".to_owned(), reason);
    }

    /// Checks across files: which ServiceAccount lists the secrets of which class, for pods if there are any.
    pub fn finish(&mut self) {
        self.findings.extend(self.mounts.findings());
        let files = &self.files;
        let place = |finding: &Finding| files.iter().position(|file| *file == finding.file);
        self.findings
            .sort_by_key(|finding| (place(finding), finding.line));
    }

    /// The number of errors.
    pub fn errors(&self) -> usize {
        self.findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .count()
    }

    fn find(&mut self, file: &str, line: u64, severity: Severity, place: String, reason: String) {
        self.findings.push(Finding {
            file: file.to_owned(),
            line,
            severity,
            place,
            reason,
        });
    }

    /// Checks the API version of a kind that is checked. `known` begins with the one to use.
    fn header(&mut self, file: &str, header: &Header, known: &[&str]) {
        let place = format!("{}, apiVersion", title(header));
        let (line, reason) = match &header.api_version {
            None => (
                header.line,
                format!("missing: set apiVersion: {}", known[0]),
            ),
            Some(version) if known.contains(&version.value.as_str()) => return,
            Some(version) => {
                let shown = one_line(&version.value, MAX_NAME);
                let reason = format!("unknown apiVersion {shown:?}; did you mean {}?", known[0]);
                (version.line, reason)
            }
        };
        self.find(file, line, Severity::Error, place, reason);
    }

    /// An object of another kind, which may be a misspelled one.
    fn other(&mut self, file: &str, header: &Header) {
        self.others += 1;
        let kinds: Vec<&str> = [CLASS, ACCOUNT]
            .into_iter()
            .chain(WORKLOADS.iter().map(|(kind, ..)| *kind))
            .collect();
        let version = header.api_version.as_ref().map_or("", |v| &v.value);
        let kind = &header.kind;
        // A similar kind of another group may be right.
        let of_ours = ["", "v1", "apps/v1", "batch/v1"].contains(&version)
            || version.contains("secret")
            || version.contains("csi");
        let Some(near) = nearest(&kind.value, &kinds).filter(|_| of_ours) else {
            return;
        };
        let place = format!("{}, kind", title(header));
        let reason = format!("unknown kind {:?}; did you mean {near}?", kind.value);
        self.find(file, kind.line, Severity::Error, place, reason);
    }

    fn account(&mut self, file: &str, header: &Header) {
        self.accounts += 1;
        let place = format!("ServiceAccount {}, {ANNOTATION}", header.name);
        let annotation = header.annotations.iter().find(|a| a.name == ANNOTATION);
        let list = match annotation {
            Some(entry) if !entry.value.is_text => {
                let reason = "not text: put the array into quotes, as '[\"db\"]'".to_owned();
                self.find(file, entry.value.line, Severity::Error, place, reason);
                List::Invalid
            }
            Some(entry) => match AllowList::parse(Some(&entry.value.value)) {
                AllowList::Names(names) => List::Names(names),
                AllowList::Absent => List::Absent,
                AllowList::Invalid(why) => {
                    self.find(file, entry.value.line, Severity::Error, place, why);
                    List::Invalid
                }
            },
            None => match header.annotations.iter().find(|a| is_near(&a.name)) {
                Some(near) => {
                    let place = format!("ServiceAccount {}, {}", header.name, near.name);
                    let reason = format!("unknown annotation; did you mean {ANNOTATION}?");
                    self.find(file, near.line, Severity::Error, place, reason);
                    List::Invalid
                }
                None => List::Absent,
            },
        };
        let account = Account {
            file: file.to_owned(),
            line: annotation.map_or(header.line, |entry| entry.value.line),
            list,
        };
        self.mounts
            .add_account(&header.namespace, &header.name, account);
    }

    /// The annotation has an effect on ServiceAccounts only.
    fn misplaced(&mut self, file: &str, header: &Header, annotations: &[Entry]) {
        let names_it = |entry: &&Entry| entry.name == ANNOTATION || is_near(&entry.name);
        for entry in annotations.iter().filter(names_it) {
            let place = format!("{}, {}", title(header), entry.name);
            let reason = format!("has no effect here: set {ANNOTATION} on the ServiceAccount");
            self.find(file, entry.line, Severity::Warning, place, reason);
        }
    }

    fn pod(&mut self, file: &str, pod: &PodManifest) {
        self.others += 1;
        let header = &pod.header;
        let expected = WORKLOADS
            .iter()
            .find(|(kind, ..)| *kind == header.kind.value);
        if let (Some((_, _, expected)), Some(version)) = (expected, &header.api_version)
            && version.value != *expected
            && nearest(&version.value, &[*expected]).is_some()
        {
            self.header(file, header, &[*expected]);
        }
        self.misplaced(file, header, &header.annotations);
        self.misplaced(file, header, &pod.annotations);
        for volume in &pod.volumes {
            self.volume(file, pod, volume);
        }
    }

    fn volume(&mut self, file: &str, pod: &PodManifest, volume: &CsiVolume) {
        let title = title(&pod.header);
        let driver = &volume.driver;
        if driver.value != DRIVER {
            if nearest(&driver.value, &[DRIVER]).is_some() {
                let place = format!("{title}, csi.driver");
                let reason = format!("unknown driver {:?}; did you mean {DRIVER}?", driver.value);
                self.find(file, driver.line, Severity::Error, place, reason);
            }
            return;
        }
        let attribute = |name: &str| volume.attributes.iter().find(|entry| entry.name == name);
        let Some(class) = attribute(CLASS_ATTRIBUTE) else {
            let near = (volume.attributes.iter())
                .find(|entry| nearest(&entry.name, &[CLASS_ATTRIBUTE]).is_some());
            let (line, reason) = match near {
                Some(near) => (
                    near.line,
                    format!(
                        "unknown attribute {:?}; did you mean {CLASS_ATTRIBUTE}?",
                        near.name
                    ),
                ),
                None => (
                    volume.line,
                    format!("missing: set {CLASS_ATTRIBUTE} to the name of the class"),
                ),
            };
            let place = format!("{title}, csi.volumeAttributes");
            self.find(file, line, Severity::Error, place, reason);
            return;
        };
        let own = attribute("objects").and_then(|own| Objects::parse(&own.value.value).ok());
        let own = own.map(|own| own.list.iter().map(|object| object.name.clone()).collect());
        self.mounts
            .add_pod(file, class.value.line, pod, &class.value.value, own);
    }

    fn class(&mut self, file: &str, class: &ClassManifest, providers: &[String]) {
        let header = &class.header;
        let name = format!("SecretProviderClass {}", header.name);
        let known: Vec<&str> = providers.iter().map(String::as_str).collect();
        match &class.provider {
            Some(provider) if !known.contains(&provider.value.as_str()) => {
                if let Some(near) = nearest(&provider.value, &known) {
                    let reason = format!(
                        "unknown provider {:?}; did you mean {near}?",
                        provider.value
                    );
                    let place = format!("{name}, spec.provider");
                    self.find(file, provider.line, Severity::Error, place, reason);
                }
                self.others += 1;
                self.mounts
                    .add_class(&header.namespace, &header.name, Class::default());
                return;
            }
            Some(_) => {}
            None => {
                let reason = format!("missing: set provider: {}", providers.join(" or "));
                let place = format!("{name}, spec.provider");
                self.find(file, header.line, Severity::Error, place, reason);
            }
        }
        self.classes += 1;
        for entry in &class.parameters {
            self.parameter(file, &name, entry);
        }
        let secrets = match class.parameter("objects") {
            // Reported with the other parameters.
            Some(objects) if !objects.is_text => Vec::new(),
            Some(objects) => self.objects(file, &name, class, objects),
            None => {
                let reason = "missing: set it to a YAML list of secrets".to_owned();
                let place = format!("{name}, spec.parameters.objects");
                self.find(file, header.line, Severity::Error, place, reason);
                Vec::new()
            }
        };
        self.mounts
            .add_class(&header.namespace, &header.name, Class { secrets });
    }

    fn parameter(&mut self, file: &str, name: &str, entry: &Entry) {
        let (key, value) = (entry.name.as_str(), &entry.value);
        let place = format!("{name}, spec.parameters.{}", one_line(key, MAX_NAME));
        if !value.is_text {
            let reason = match key {
                "objects" => "not text: write `objects: |`, and the list below it",
                _ => "not text: put the value in quotes",
            };
            self.find(file, value.line, Severity::Error, place, reason.to_owned());
        } else if PROTECTED.contains(&key) {
            if let Err(reason) = check_parameter(key, &value.value) {
                self.find(file, value.line, Severity::Error, place, reason);
            } else if let Some(near) = unknown_region(key, &value.value) {
                let reason = format!(
                    "{:?} is not a known region with CSMS; did you mean {near}? (ignore this with --csms-endpoint)",
                    value.value
                );
                self.find(file, value.line, Severity::Warning, place, reason);
            }
        } else if let Some(near) = nearest(key, &PARAMETERS).filter(|n| *n != key) {
            let reason = format!("unknown parameter; did you mean {near}?");
            self.find(file, entry.line, Severity::Error, place, reason);
        } else if asks_for_identity(key, &value.value) {
            let reason = UNSUPPORTED_IDENTITY.to_owned();
            self.find(file, entry.line, Severity::Error, place, reason);
        } else if key != "objects" {
            let reason = format!(
                "unknown parameter, which is ignored; known parameters: {}",
                PARAMETERS.join(", ")
            );
            self.find(file, entry.line, Severity::Warning, place, reason);
        }
    }

    fn objects(
        &mut self,
        file: &str,
        name: &str,
        class: &ClassManifest,
        objects: &Scalar,
    ) -> Vec<NamedSecret> {
        let parsed = match Objects::parse(&objects.value) {
            Ok(parsed) => parsed,
            Err(problems) => {
                for problem in problems {
                    let line = objects.inner_line(problem.line);
                    let place = place_of(name, &problem);
                    self.find(file, line, Severity::Error, place, problem.reason);
                }
                return Vec::new();
            }
        };
        self.synced(file, name, class, &parsed);
        self.allowed(file, name, class, &parsed);
        let named = parsed.list.iter().map(|object| NamedSecret {
            file: file.to_owned(),
            line: objects.inner_line(object.line),
            place: format!("{name}, object {:?}", object.name),
            secret: object.name.clone(),
        });
        named.collect()
    }

    /// Checks the class against the operator's policy.
    fn allowed(&mut self, file: &str, name: &str, class: &ClassManifest, objects: &Objects) {
        let Some(policy) = &self.policy else { return };
        for finding in policy.check(class, objects) {
            let severity = match finding.is_certain {
                true => Severity::Error,
                false => Severity::Warning,
            };
            let place = format!("{name}, {}", finding.parameter);
            self.find(file, finding.line, severity, place, finding.reason);
        }
    }

    /// Reports the problems of a policy file.
    pub fn policy_problems(&mut self, file: &str, problems: Vec<PolicyProblem>) {
        for problem in problems {
            let place = match problem.place().as_str() {
                "" => "policy".to_owned(),
                place => format!("policy, {place}"),
            };
            let line = problem.line.max(1);
            self.find(file, line, Severity::Error, place, problem.reason);
        }
    }

    /// Checks that the files that `secretObjects` refer to exist; others are never synced.
    fn synced(&mut self, file: &str, name: &str, class: &ClassManifest, objects: &Objects) {
        let mut files = Vec::new();
        for object in &objects.list {
            match &object.content {
                Content::Whole { path, extracts } => {
                    files.push(path.as_str());
                    files.extend(extracts.iter().map(|e| e.path.as_str()));
                }
                // Its files are named by keys of the secret.
                Content::AllKeys { .. } => return,
            }
        }
        for reference in &class.synced {
            if files.contains(&reference.value.as_str()) {
                continue;
            }
            let hint = match nearest(&reference.value, &files) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the files are {}", files.join(", ")),
            };
            let place = format!("{name}, spec.secretObjects.data.objectName");
            let reason = format!("the volume has no file {:?}; {hint}", reference.value);
            self.find(file, reference.line, Severity::Error, place, reason);
        }
    }
}

/// Kind and name of an object.
fn title(header: &Header) -> String {
    let (kind, name) = (&header.kind.value, &header.name);
    one_line(&format!("{kind} {name}"), MAX_NAME)
}

/// Whether an annotation is a misspelling of ours.
fn is_near(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let has_words = lower.contains("dew") && lower.contains("resource");
    name != ANNOTATION && (has_words || nearest(name, &[ANNOTATION]).is_some())
}

fn unknown_region(parameter: &str, value: &str) -> Option<&'static str> {
    let region: Region = value.parse().ok()?;
    let names_one = matches!(parameter, "region" | "failoverRegion");
    (names_one && !region.is_known()).then(|| region.nearest_known())
}

fn place_of(name: &str, problem: &Problem) -> String {
    let mut place = format!("{name}, objects");
    for part in [&problem.object, &problem.field].into_iter().flatten() {
        place.push_str(", ");
        place.push_str(part);
    }
    place
}

#[cfg(test)]
mod tests;
