//! Reads and checks the `objects` list.

use std::sync::Arc;

use super::problems::{Problem, Problems};
use super::rules::{check_files, check_names, encoding, secret_name, version_rule};
use super::types::{
    Content, Encoding, Extract, MAX_EXTRACTS, MAX_OBJECTS, MAX_OBJECTS_BYTES, Object,
};
use super::yaml::{self, RawExtract, RawObject, Text, UnknownFields};
use crate::class::file_names;
use crate::class::jmespath::JmesPath;
use crate::class::suggestion::unknown_field;
use crate::cloud::VersionSelector;

/// The checked list, in the order written.
#[derive(Clone, Debug)]
pub struct Objects {
    /// At least one object.
    pub list: Vec<Arc<Object>>,
}

impl Objects {
    /// Reads and checks the text of the parameter `objects`.
    ///
    /// # Errors
    /// All problems of the list, in the order of their lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let whole = |line, reason: String| {
            vec![Problem {
                line,
                reason,
                ..Problem::default()
            }]
        };
        if text.len() > MAX_OBJECTS_BYTES {
            return Err(whole(
                0,
                format!(
                    "list too large: {} bytes (limit {MAX_OBJECTS_BYTES})",
                    text.len()
                ),
            ));
        }
        let raw = yaml::parse(text).map_err(|fault| {
            vec![Problem {
                line: fault.line,
                reason: match fault.field {
                    Some(_) => fault.reason,
                    None => format!("not a YAML list of objects: {}", fault.reason),
                },
                field: fault.field,
                ..Problem::default()
            }]
        })?;
        if raw.count == 0 {
            return Err(whole(
                0,
                "the list is empty: name at least one secret as `- objectName: …`".into(),
            ));
        }
        if raw.count > MAX_OBJECTS {
            return Err(whole(
                0,
                format!("too many objects: {} (limit {MAX_OBJECTS})", raw.count),
            ));
        }
        let raw = raw.items;
        let mut problems = Problems::default();
        let mut objects = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let mut check = Check::new(raw, index, &mut problems);
            objects.extend(check.object(raw));
        }
        check_names(&raw, &mut problems);
        if problems.is_empty() {
            check_files(&objects, &mut problems);
        }
        if problems.is_empty() {
            Ok(Self {
                list: objects.into_iter().map(Arc::new).collect(),
            })
        } else {
            Err(problems.into_list())
        }
    }
}

/// Collects the problems of one object.
struct Check<'a> {
    line: u64,
    label: String,
    problems: &'a mut Problems,
}

impl<'a> Check<'a> {
    fn new(raw: &RawObject, index: usize, problems: &'a mut Problems) -> Self {
        Self {
            line: raw.line,
            label: raw.label(index),
            problems,
        }
    }

    fn fault(&mut self, line: u64, field: &str, reason: impl Into<String>) {
        self.problems
            .add(line, &self.label, field, || reason.into());
    }

    /// Adds a problem for each unknown field. `prefix` is the field that contains them.
    fn unknown_fields(&mut self, prefix: &str, unknown: &UnknownFields, known: &[&str]) {
        for (field, line) in &unknown.kept {
            let name = format!("{prefix}{field}");
            self.problems
                .add(*line, &self.label, &name, || unknown_field(field, known));
        }
        self.problems.drop_more(unknown.dropped);
    }

    /// Applies `rule` to a field that is set; an error becomes a problem.
    fn field<T>(
        &mut self,
        field: &str,
        text: Option<&Text>,
        rule: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text?;
        rule(&text.value)
            .map_err(|reason| self.fault(text.line, field, reason))
            .ok()
    }

    fn object(&mut self, raw: &RawObject) -> Option<Object> {
        let before = self.problems.count();
        self.unknown_fields("", &raw.unknown, RawObject::FIELDS);
        if raw.name.is_none() {
            self.fault(
                self.line,
                "objectName",
                "missing: set it to the name of the secret in CSMS",
            );
        }
        let name = self.field("objectName", raw.name.as_ref(), secret_name);
        match &raw.kind {
            None => self.fault(self.line, "objectType", "missing: set objectType: csms"),
            Some(kind) if kind.value != "csms" => {
                let reason = format!("unknown type {:?}: use csms", kind.value);
                self.fault(kind.line, "objectType", reason);
            }
            Some(_) => {}
        }
        let selector = self.selector(raw);
        let mode = self.field("filePermission", raw.mode.as_ref(), file_names::mode);
        let encoding = self.field("encoding", raw.encoding.as_ref(), encoding);
        let alias = self.field("objectAlias", raw.alias.as_ref(), |alias| {
            file_names::check(alias).map(|()| alias.to_owned())
        });
        let extracts: Vec<Extract> = raw
            .extracts
            .iter()
            .flat_map(|extracts| &extracts.items)
            .filter_map(|item| self.extract(item))
            .collect();
        let count = raw.extracts.as_ref().map(|extracts| extracts.count);
        if count == Some(0) {
            self.fault(
                self.line,
                "jmesPath",
                "the list is empty: remove it or add an item",
            );
        }
        if let Some(count) = count.filter(|count| *count > MAX_EXTRACTS) {
            let reason = format!("too many items: {count} (limit {MAX_EXTRACTS})");
            self.fault(self.line, "jmesPath", reason);
        }
        let all_keys = raw.all_keys.unwrap_or(false);
        if all_keys && raw.extracts.is_some() {
            self.fault(
                self.line,
                "allKeys",
                "cannot be combined with jmesPath: use one of them",
            );
        }
        if let (Some(name), None, false) = (&name, &raw.alias, all_keys)
            && let Err(why) = file_names::check(name)
        {
            self.fault(
                self.line,
                "objectName",
                format!("{why}: set objectAlias to another file name"),
            );
        }
        if self.problems.count() > before {
            return None;
        }
        let name = name?;
        Some(Object {
            line: self.line,
            selector: selector?,
            content: if all_keys {
                Content::AllKeys { folder: alias }
            } else {
                Content::Whole {
                    path: alias.unwrap_or_else(|| name.clone()),
                    extracts,
                }
            },
            name,
            mode,
            encoding: encoding.unwrap_or(Encoding::Utf8),
            optional: raw.optional.unwrap_or(false),
        })
    }

    fn selector(&mut self, raw: &RawObject) -> Option<VersionSelector> {
        match (&raw.version, &raw.stage) {
            (Some(version), Some(_)) => {
                self.fault(
                    version.line,
                    "objectVersion",
                    "cannot be combined with stage: use one of them",
                );
                None
            }
            (None, None) => {
                self.fault(
                    self.line,
                    "objectVersion",
                    "missing: set it to latest or a version such as v1, or set stage instead",
                );
                None
            }
            (version, None) => self.field("objectVersion", version.as_ref(), version_rule),
            (None, stage) => self.field("stage", stage.as_ref(), |stage| {
                secret_name(stage).map(VersionSelector::Stage)
            }),
        }
    }

    fn extract(&mut self, raw: &RawExtract) -> Option<Extract> {
        self.unknown_fields("jmesPath.", &raw.unknown, RawExtract::FIELDS);
        if raw.path.is_none() {
            self.fault(
                raw.line,
                "jmesPath.path",
                "missing: set it to a JMESPath expression",
            );
        }
        if raw.alias.is_none() {
            self.fault(
                raw.line,
                "jmesPath.objectAlias",
                "missing: set it to the name of the file",
            );
        }
        let expression = self.field("jmesPath.path", raw.path.as_ref(), JmesPath::compile);
        let path = self.field("jmesPath.objectAlias", raw.alias.as_ref(), |alias| {
            file_names::check(alias).map(|()| alias.to_owned())
        });
        let mode = self.field(
            "jmesPath.filePermission",
            raw.mode.as_ref(),
            file_names::mode,
        );
        Some(Extract {
            expression: expression?,
            path: path?,
            mode,
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
