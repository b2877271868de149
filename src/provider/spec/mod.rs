//! The `objects` list of a SecretProviderClass: from YAML text to checked objects.
//!
//! Pure, so that Mount and the offline `lint` command run the very same code. All problems of a
//! list are reported together, each with its line.

use std::fmt;
use std::sync::Arc;

use jpx_core::Expression;

use crate::provider::paths;
use crate::store::Selector;

mod growth;
mod rules;
mod yaml;
use rules::{check_files, check_names, compile, encoding, secret_name, version_rule};
pub use rules::{nearest, unknown};
use yaml::{RawExtract, RawObject, Text};

/// Most bytes of `objects` that are read.
pub const MAX_OBJECTS_BYTES: usize = 256 * 1024;
/// Most objects of one SecretProviderClass.
pub const MAX_OBJECTS: usize = 200;
/// Most files that an object names; a volume takes 4 MiB in any case.
pub const MAX_EXTRACTS: usize = 200;
/// Longest JMESPath expression, in bytes: keeps its parser far from the end of the stack.
pub const MAX_JMESPATH_BYTES: usize = 512;

/// How the text of a secret becomes the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The text as it is; a binary secret byte for byte.
    Utf8,
    /// The text is Base64; the file holds what it stands for.
    Base64,
    /// The text is hexadecimal; the file holds what it stands for.
    Hex,
}

/// One `jmesPath` item: a part of a JSON secret as a file of its own.
#[derive(Clone)]
pub struct Extract {
    /// The compiled expression.
    pub expression: Expression<'static>,
    /// File that receives the result.
    pub path: String,
    /// Mode of that file, where it differs from the object's.
    pub mode: Option<u32>,
}

impl fmt::Debug for Extract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extract")
            .field("expression", &self.expression.as_str())
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish()
    }
}

/// Which files an object becomes.
#[derive(Clone, Debug)]
pub enum Content {
    /// The whole value as `path`, and each extract beside it.
    Whole {
        /// `objectAlias`, else `objectName`.
        path: String,
        /// The `jmesPath` items.
        extracts: Vec<Extract>,
    },
    /// Each top-level key of a JSON object as a file, inside `folder` if there is one.
    AllKeys {
        /// `objectAlias`.
        folder: Option<String>,
    },
}

/// One checked object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Line of `objects` on which it begins, from 1.
    pub line: u64,
    /// Name of the secret in CSMS.
    pub name: String,
    /// Which version of it.
    pub selector: Selector,
    /// The files that come of it.
    pub content: Content,
    /// Mode of its files; the driver's default where none is given.
    pub mode: Option<u32>,
    /// How text becomes bytes.
    pub encoding: Encoding,
    /// Whether a secret or value that does not exist is left out instead of failing the mount.
    pub optional: bool,
}

/// The checked list, in the order written.
#[derive(Clone, Debug)]
pub struct Spec {
    /// At least one object.
    pub objects: Vec<Arc<Object>>,
}

/// Something wrong in `objects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of `objects`, from 1; 0 where the list as a whole is meant.
    pub line: u64,
    /// The object's name, or its place in the list.
    pub object: Option<String>,
    /// The field.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "objects")?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl Spec {
    /// Reads and checks the text of the parameter `objects`.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let whole = |line, reason: String| {
            vec![Problem {
                line,
                object: None,
                field: None,
                reason,
            }]
        };
        if text.len() > MAX_OBJECTS_BYTES {
            return Err(whole(
                0,
                format!("{} bytes are more than {MAX_OBJECTS_BYTES}", text.len()),
            ));
        }
        let raw = yaml::parse(text).map_err(|e| whole(e.line, e.reason))?;
        if raw.is_empty() {
            return Err(whole(
                0,
                "the list is empty: name at least one secret as `- objectName: …`".into(),
            ));
        }
        if raw.len() > MAX_OBJECTS {
            return Err(whole(
                0,
                format!("{} objects are more than {MAX_OBJECTS}", raw.len()),
            ));
        }
        let mut problems = Vec::new();
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
                objects: objects.into_iter().map(Arc::new).collect(),
            })
        } else {
            problems.sort_by_key(|p| p.line);
            Err(problems)
        }
    }
}

/// Collects what is wrong with one object.
struct Check<'a> {
    line: u64,
    label: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    fn new(raw: &RawObject, index: usize, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            line: raw.line,
            label: label(raw, index),
            problems,
        }
    }

    fn fault(&mut self, line: u64, field: &str, reason: impl Into<String>) {
        self.problems.push(Problem {
            line,
            object: Some(self.label.clone()),
            field: Some(field.to_owned()),
            reason: reason.into(),
        });
    }

    /// Runs `rule` over a field that is there; a refusal becomes a problem.
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
        let before = self.problems.len();
        for (field, line) in &raw.unknown {
            self.fault(*line, field, unknown(field, RawObject::FIELDS));
        }
        if raw.name.is_none() {
            self.fault(
                self.line,
                "objectName",
                "is missing: write the secret's name in CSMS",
            );
        }
        let name = self.field("objectName", raw.name.as_ref(), secret_name);
        match &raw.kind {
            None => self.fault(
                self.line,
                "objectType",
                "is missing: write objectType: csms",
            ),
            Some(kind) if kind.value != "csms" => {
                let reason = format!("{:?} is not known: only csms is", kind.value);
                self.fault(kind.line, "objectType", reason);
            }
            Some(_) => {}
        }
        let selector = self.selector(raw);
        let mode = self.field("filePermission", raw.mode.as_ref(), paths::mode);
        let encoding = self.field("encoding", raw.encoding.as_ref(), encoding);
        let alias = self.field("objectAlias", raw.alias.as_ref(), |alias| {
            paths::check(alias).map(|()| alias.to_owned())
        });
        let extracts: Vec<Extract> = raw
            .extracts
            .iter()
            .flatten()
            .filter_map(|item| self.extract(item))
            .collect();
        if raw.extracts.as_ref().is_some_and(Vec::is_empty) {
            self.fault(
                self.line,
                "jmesPath",
                "the list is empty: remove it or add an item",
            );
        }
        if extracts.len() > MAX_EXTRACTS {
            let reason = format!("{} items are more than {MAX_EXTRACTS}", extracts.len());
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
        if self.problems.len() > before {
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

    fn selector(&mut self, raw: &RawObject) -> Option<Selector> {
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
                    "is missing: write latest, a version such as v1, or stage: NAME instead",
                );
                None
            }
            (version, None) => self.field("objectVersion", version.as_ref(), version_rule),
            (None, stage) => self.field("stage", stage.as_ref(), |stage| {
                secret_name(stage).map(Selector::Stage)
            }),
        }
    }

    fn extract(&mut self, raw: &RawExtract) -> Option<Extract> {
        for (field, line) in &raw.unknown {
            self.fault(
                *line,
                &format!("jmesPath.{field}"),
                unknown(field, RawExtract::FIELDS),
            );
        }
        if raw.path.is_none() {
            self.fault(
                raw.line,
                "jmesPath.path",
                "is missing: write a JMESPath expression",
            );
        }
        if raw.alias.is_none() {
            self.fault(
                raw.line,
                "jmesPath.objectAlias",
                "is missing: write the name of the file",
            );
        }
        let expression = self.field("jmesPath.path", raw.path.as_ref(), compile);
        let path = self.field("jmesPath.objectAlias", raw.alias.as_ref(), |alias| {
            paths::check(alias).map(|()| alias.to_owned())
        });
        let mode = self.field("jmesPath.filePermission", raw.mode.as_ref(), paths::mode);
        Some(Extract {
            expression: expression?,
            path: path?,
            mode,
        })
    }
}

/// How messages name an object: by its name, else by its place.
fn label(raw: &RawObject, index: usize) -> String {
    match &raw.name {
        Some(name) => format!("object {:?}", name.value),
        None => format!("object number {}", index + 1),
    }
}

#[cfg(test)]
mod tests;
