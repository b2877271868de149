//! The YAML of `objects` as written: every field with its line, not checked yet.
//!
//! Fields are read as the types they must have (never as untyped YAML, where `no` is a boolean and
//! `010` is eight). Unknown fields are kept by name, so that all of them can be reported.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Options, Spanned};

use super::problems::label;
use crate::util::yaml::{YamlFault, describe};

/// A scalar and its line.
#[derive(Debug)]
pub(super) struct Text {
    /// The scalar as written.
    pub(super) value: String,
    /// Line of `objects`, from 1.
    pub(super) line: u64,
}

impl From<Spanned<String>> for Text {
    fn from(spanned: Spanned<String>) -> Self {
        Self {
            line: spanned.referenced.line(),
            value: spanned.value,
        }
    }
}

/// One item of the list.
#[derive(Debug, Default)]
pub(super) struct RawObject {
    pub(super) line: u64,
    pub(super) name: Option<Text>,
    pub(super) kind: Option<Text>,
    pub(super) version: Option<Text>,
    pub(super) stage: Option<Text>,
    pub(super) alias: Option<Text>,
    pub(super) extracts: Option<Vec<RawExtract>>,
    pub(super) mode: Option<Text>,
    pub(super) encoding: Option<Text>,
    pub(super) optional: Option<bool>,
    pub(super) all_keys: Option<bool>,
    /// Unknown fields, with their lines.
    pub(super) unknown: Vec<(String, u64)>,
}

impl RawObject {
    /// The known fields.
    pub(super) const FIELDS: &'static [&'static str] = &[
        "objectName",
        "objectType",
        "objectVersion",
        "stage",
        "objectAlias",
        "jmesPath",
        "filePermission",
        "encoding",
        "optional",
        "allKeys",
    ];

    /// How messages name the object.
    pub(super) fn label(&self, index: usize) -> String {
        label(self.name.as_ref().map(|name| name.value.as_str()), index)
    }
}

/// One item of `jmesPath`.
#[derive(Debug, Default)]
pub(super) struct RawExtract {
    pub(super) line: u64,
    pub(super) path: Option<Text>,
    pub(super) alias: Option<Text>,
    pub(super) mode: Option<Text>,
    /// Unknown fields, with their lines.
    pub(super) unknown: Vec<(String, u64)>,
}

impl RawExtract {
    /// The known fields.
    pub(super) const FIELDS: &'static [&'static str] = &["path", "objectAlias", "filePermission"];
}

/// Parses the list. An empty text is an empty list.
///
/// serde-saphyr's own limits stop alias bombs, deep nesting and repeated keys.
pub(super) fn parse(text: &str) -> Result<Vec<RawObject>, YamlFault> {
    let options: Options = serde_saphyr::options! { with_snippet: false };
    type Document = Option<Vec<Spanned<RawObject>>>;
    let documents: Vec<Document> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| describe(&error, text))?;
    // A trailing `---` begins another document, which is empty.
    let mut lists = documents.into_iter().flatten();
    let list = lists.next().unwrap_or_default();
    if let Some(line) = lists.flatten().map(|item| item.referenced.line()).next() {
        return Err(YamlFault {
            line,
            field: None,
            reason: "a second YAML document: put all objects into one list, without ---".to_owned(),
        });
    }
    Ok(list
        .into_iter()
        .map(|item| RawObject {
            line: item.referenced.line(),
            ..item.value
        })
        .collect())
}

/// Reads one field's text; `None` for an explicit null.
fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Text>, A::Error> {
    Ok(map.next_value::<Option<Spanned<String>>>()?.map(Text::from))
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with objectName, objectType and objectVersion")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut raw = RawObject::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    match key.value.as_str() {
                        "objectName" => raw.name = text(&mut map)?,
                        "objectType" => raw.kind = text(&mut map)?,
                        "objectVersion" => raw.version = text(&mut map)?,
                        "stage" => raw.stage = text(&mut map)?,
                        "objectAlias" => raw.alias = text(&mut map)?,
                        "filePermission" => raw.mode = text(&mut map)?,
                        "encoding" => raw.encoding = text(&mut map)?,
                        "optional" => raw.optional = map.next_value()?,
                        "allKeys" => raw.all_keys = map.next_value()?,
                        "jmesPath" => {
                            let items: Option<Vec<Spanned<RawExtract>>> = map.next_value()?;
                            raw.extracts = items.map(|items| {
                                items
                                    .into_iter()
                                    .map(|i| RawExtract {
                                        line: i.referenced.line(),
                                        ..i.value
                                    })
                                    .collect()
                            });
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            raw.unknown.push((key.value, key.referenced.line()));
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for RawExtract {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawExtract;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an item with path and objectAlias")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawExtract, A::Error> {
                let mut raw = RawExtract::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    match key.value.as_str() {
                        "path" => raw.path = text(&mut map)?,
                        "objectAlias" => raw.alias = text(&mut map)?,
                        "filePermission" => raw.mode = text(&mut map)?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            raw.unknown.push((key.value, key.referenced.line()));
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
