//! Checks manifests offline, with the parser that Mount uses.

use std::collections::BTreeSet;
use std::fmt;

use crate::cloud::Region;
use crate::kube::accounts::{ANNOTATION, AllowList};
use crate::provider::parameters::{PARAMETERS, PROTECTED};
use crate::provider::resolve;
use crate::provider::spec::{self, Content, Spec, nearest};

pub(crate) mod manifest;
use manifest::{Class, Document, Line, Scalar};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A Mount would fail.
    Error,
    /// Probably not what is meant.
    Warning,
}

/// Something found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// How bad.
    pub severity: Severity,
    /// Kind and name of the object, then the field.
    pub place: String,
    /// What is wrong and what to do.
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

/// What was checked and found.
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
    wanted: Vec<Wanted>,
    listed: BTreeSet<(String, String)>,
}

/// A secret that a class names.
#[derive(Debug)]
struct Wanted {
    file: String,
    line: u64,
    place: String,
    namespace: String,
    secret: String,
}

impl Report {
    /// Checks the text of one file. `providers` are the names that are ours.
    pub fn file(&mut self, file: &str, text: &str, providers: &[String]) {
        for document in manifest::documents(text) {
            match document {
                Ok(Document::Class(class)) => self.class(file, &class, providers),
                Ok(Document::Account(account)) => {
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
                        AllowList::Bad(why) => {
                            let place = format!("ServiceAccount {}, {ANNOTATION}", account.name);
                            self.find(file, annotation.line.0, Severity::Error, place, why);
                        }
                        AllowList::Absent => {}
                    }
                }
                Ok(Document::Other) => self.others += 1,
                Err((line, reason)) => {
                    self.find(file, line, Severity::Error, "YAML".into(), reason);
                }
            }
        }
    }

    /// Checks between files: every secret should be listed by a ServiceAccount of its namespace,
    /// where any are among the files.
    pub fn finish(&mut self) {
        let namespaces: BTreeSet<&str> = self.listed.iter().map(|(n, _)| n.as_str()).collect();
        let mut found = Vec::new();
        for wanted in &self.wanted {
            let key = (wanted.namespace.clone(), wanted.secret.clone());
            if namespaces.contains(wanted.namespace.as_str()) && !self.listed.contains(&key) {
                found.push(Finding {
                    file: wanted.file.clone(),
                    line: wanted.line,
                    severity: Severity::Warning,
                    place: wanted.place.clone(),
                    reason: format!(
                        "no ServiceAccount among these files lists {:?} in its annotation {ANNOTATION}",
                        wanted.secret
                    ),
                });
            }
        }
        self.findings.extend(found);
    }

    /// How many findings are errors.
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

    fn class(&mut self, file: &str, class: &Class, providers: &[String]) {
        let name = format!("SecretProviderClass {}", class.name);
        match &class.provider {
            Some(provider) if !providers.contains(&provider.value) => {
                let known: Vec<&str> = providers.iter().map(String::as_str).collect();
                if let Some(near) = nearest(&provider.value, &known) {
                    let reason = format!("{:?} is not {near}: did you mean it?", provider.value);
                    self.find(
                        file,
                        provider.line.0,
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
                let reason = format!("is missing: write provider: {}", providers.join(" or "));
                self.find(
                    file,
                    class.line.0,
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
                let reason = "is missing: give it a YAML list of secrets".to_owned();
                self.find(
                    file,
                    class.line.0,
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
            if let Err(reason) = resolve::check_parameter(&key.value, &value.value) {
                self.find(file, value.line.0, Severity::Error, place, reason);
            } else if let Some(near) = unknown_region(&key.value, &value.value) {
                let reason = format!(
                    "{:?} is not known to have CSMS; did you mean {near}? (fine with --csms-endpoint)",
                    value.value
                );
                self.find(file, value.line.0, Severity::Warning, place, reason);
            }
        } else if let Some(near) = nearest(&key.value, &PARAMETERS).filter(|n| *n != key.value) {
            let reason = format!("is not a parameter; did you mean {near}?");
            self.find(file, key.line.0, Severity::Error, place, reason);
        } else if key.value != "objects" {
            let reason = format!(
                "is not a parameter and does nothing; known are {}",
                PARAMETERS.join(", ")
            );
            self.find(file, key.line.0, Severity::Warning, place, reason);
        }
    }

    fn objects(&mut self, file: &str, name: &str, class: &Class, objects: &Scalar) {
        let parsed = match Spec::parse(&objects.value) {
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
        for object in &parsed.objects {
            self.wanted.push(Wanted {
                file: file.to_owned(),
                line: objects.inner_line(object.line),
                place: format!("{name}, object {:?}", object.name),
                namespace: class.namespace.clone(),
                secret: object.name.clone(),
            });
        }
        self.synced(file, name, class, &parsed);
    }

    /// `secretObjects` name files of the volume; one that does not exist never syncs.
    fn synced(&mut self, file: &str, name: &str, class: &Class, spec: &Spec) {
        let mut files = Vec::new();
        for object in &spec.objects {
            match &object.content {
                Content::Whole { path, extracts } => {
                    files.push(path.as_str());
                    files.extend(extracts.iter().map(|e| e.path.as_str()));
                }
                // Its files are keys that only the secret knows.
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
            let reason = format!(
                "no file of the volume is called {:?}; {hint}",
                reference.value
            );
            self.find(file, reference.line.0, Severity::Error, place, reason);
        }
    }
}

fn unknown_region(parameter: &str, value: &str) -> Option<&'static str> {
    let region: Region = value.parse().ok()?;
    let names_one = matches!(parameter, "region" | "failoverRegion");
    (names_one && !region.is_known()).then(|| region.nearest_known())
}

fn place_of(name: &str, problem: &spec::Problem) -> String {
    let mut place = format!("{name}, objects");
    for part in [&problem.object, &problem.field].into_iter().flatten() {
        place.push_str(", ");
        place.push_str(part);
    }
    place
}

impl Scalar {
    /// The file's line for line `inner` of this scalar's text.
    fn inner_line(&self, inner: u64) -> u64 {
        let Line(start) = self.line;
        match (inner, self.block) {
            (0, _) | (_, false) => start,
            (inner, true) => start + inner - 1,
        }
    }
}

#[cfg(test)]
mod tests;
