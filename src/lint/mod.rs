//! Checks manifests offline, with the parser that a Mount uses.

use std::collections::BTreeSet;
use std::fmt;

use crate::class::objects::{Content, Objects, Problem};
use crate::class::parameters::{PARAMETERS, PROTECTED, UNSUPPORTED_IDENTITY, asks_for_identity};
use crate::class::resolver::check_parameter;
use crate::class::suggestion::nearest;
use crate::cloud::Region;
use crate::kube::service_accounts::{ANNOTATION, AllowList};
use crate::policy::PolicyProblem;

pub(crate) mod manifest;
mod policy;
use manifest::{ClassManifest, ManifestDocument, Scalar};
pub use policy::PolicyCheck;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A Mount would fail.
    Error,
    /// Probably not intended.
    Warning,
}

/// A problem in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as named on the command line.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Its severity.
    pub severity: Severity,
    /// Kind and name of the object, then the field.
    pub place: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}: {severity}: {}: {}",
            self.file, self.line, self.place, self.reason
        )
    }
}

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
    named: Vec<NamedSecret>,
    listed: BTreeSet<(String, String)>,
}

/// A secret that a class names.
#[derive(Debug)]
struct NamedSecret {
    file: String,
    line: u64,
    place: String,
    namespace: String,
    secret: String,
}

impl Report {
    /// Checks the text of one file. `providers` are the names of this provider.
    pub fn file(&mut self, file: &str, text: &str, providers: &[String]) {
        for document in manifest::documents(text) {
            match document {
                Ok(ManifestDocument::Class(class)) => self.class(file, &class, providers),
                Ok(ManifestDocument::ServiceAccount(account)) => {
                    self.accounts += 1;
                    let Some(annotation) = account.annotation else {
                        continue;
                    };
                    match AllowList::parse(Some(&annotation.value)) {
                        AllowList::Names(names) => self.listed.extend(
                            names
                                .into_iter()
                                .map(|name| (account.namespace.clone(), name)),
                        ),
                        AllowList::Invalid(why) => {
                            let place = format!("ServiceAccount {}, {ANNOTATION}", account.name);
                            self.find(file, annotation.line, Severity::Error, place, why);
                        }
                        AllowList::Absent => {}
                    }
                }
                Ok(ManifestDocument::Other) => self.others += 1,
                Err((line, reason)) => {
                    self.find(file, line, Severity::Error, "YAML".into(), reason);
                }
            }
        }
    }

    /// Checks across files: a ServiceAccount of the namespace should list each secret, if the files contain
    /// any ServiceAccount of it.
    pub fn finish(&mut self) {
        let namespaces: BTreeSet<&str> = self.listed.iter().map(|(n, _)| n.as_str()).collect();
        let mut found = Vec::new();
        for named in &self.named {
            let key = (named.namespace.clone(), named.secret.clone());
            if namespaces.contains(named.namespace.as_str()) && !self.listed.contains(&key) {
                found.push(Finding {
                    file: named.file.clone(),
                    line: named.line,
                    severity: Severity::Warning,
                    place: named.place.clone(),
                    reason: format!(
                        "no ServiceAccount in these files lists {:?} in its annotation {ANNOTATION}",
                        named.secret
                    ),
                });
            }
        }
        self.findings.extend(found);
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

    fn class(&mut self, file: &str, class: &ClassManifest, providers: &[String]) {
        let name = format!("SecretProviderClass {}", class.name);
        match &class.provider {
            Some(provider) if !providers.contains(&provider.value) => {
                let known: Vec<&str> = providers.iter().map(String::as_str).collect();
                if let Some(near) = nearest(&provider.value, &known) {
                    let reason = format!(
                        "unknown provider {:?}; did you mean {near}?",
                        provider.value
                    );
                    self.find(
                        file,
                        provider.line,
                        Severity::Error,
                        format!("{name}, spec.provider"),
                        reason,
                    );
                }
                self.others += 1;
                return;
            }
            Some(_) => {}
            None => {
                let reason = format!("missing: set provider: {}", providers.join(" or "));
                self.find(
                    file,
                    class.line,
                    Severity::Error,
                    format!("{name}, spec.provider"),
                    reason,
                );
            }
        }
        self.classes += 1;
        for (key, value) in &class.parameters {
            self.parameter(file, &name, key, value);
        }
        match class.parameter("objects") {
            Some(objects) => self.objects(file, &name, class, objects),
            None => {
                let reason = "missing: set it to a YAML list of secrets".to_owned();
                self.find(
                    file,
                    class.line,
                    Severity::Error,
                    format!("{name}, spec.parameters.objects"),
                    reason,
                );
            }
        }
    }

    fn parameter(&mut self, file: &str, name: &str, key: &Scalar, value: &Scalar) {
        let place = format!("{name}, spec.parameters.{}", key.value);
        if PROTECTED.contains(&key.value.as_str()) {
            if let Err(reason) = check_parameter(&key.value, &value.value) {
                self.find(file, value.line, Severity::Error, place, reason);
            } else if let Some(near) = unknown_region(&key.value, &value.value) {
                let reason = format!(
                    "{:?} is not a known region with CSMS; did you mean {near}? (ignore this with --csms-endpoint)",
                    value.value
                );
                self.find(file, value.line, Severity::Warning, place, reason);
            }
        } else if let Some(near) = nearest(&key.value, &PARAMETERS).filter(|n| *n != key.value) {
            let reason = format!("unknown parameter; did you mean {near}?");
            self.find(file, key.line, Severity::Error, place, reason);
        } else if asks_for_identity(&key.value, &value.value) {
            let reason = UNSUPPORTED_IDENTITY.to_owned();
            self.find(file, key.line, Severity::Error, place, reason);
        } else if key.value != "objects" {
            let reason = format!(
                "unknown parameter, which is ignored; known parameters: {}",
                PARAMETERS.join(", ")
            );
            self.find(file, key.line, Severity::Warning, place, reason);
        }
    }

    fn objects(&mut self, file: &str, name: &str, class: &ClassManifest, objects: &Scalar) {
        let parsed = match Objects::parse(&objects.value) {
            Ok(parsed) => parsed,
            Err(problems) => {
                for problem in problems {
                    let line = objects.inner_line(problem.line);
                    let place = place_of(name, &problem);
                    self.find(file, line, Severity::Error, place, problem.reason);
                }
                return;
            }
        };
        for object in &parsed.list {
            self.named.push(NamedSecret {
                file: file.to_owned(),
                line: objects.inner_line(object.line),
                place: format!("{name}, object {:?}", object.name),
                namespace: class.namespace.clone(),
                secret: object.name.clone(),
            });
        }
        self.synced(file, name, class, &parsed);
        self.allowed(file, name, class, &parsed);
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
