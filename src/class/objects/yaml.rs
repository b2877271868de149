//! The YAML of `objects` as written: every field with its line, not checked yet.
//!
//! Fields are read as the types they must have (never as untyped YAML, where `no` is a boolean and
//! `010` is eight). The list is a tenant's: what is read of it is bounded in number, not only its text, because
//! three bytes of YAML are an object. What is over a limit is counted, so that it can be reported.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

use super::problems::{MAX_PROBLEMS, label};
use super::types::{MAX_EXTRACTS, MAX_OBJECTS, MAX_OBJECTS_BYTES};
use crate::util::yaml::{YamlFault, describe};

/// Most keys, values, lists and maps, with those that aliases repeat. Lists that pods can mount have fewer.
const MAX_NODES: usize = 50_000;
/// Most anchors and aliases.
const MAX_ALIASES: usize = 1_000;
/// Deepest nesting: the list, an object, `jmesPath`, an item, and the values of unknown fields.
const MAX_DEPTH: usize = 16;

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
    pub(super) extracts: Option<Bounded<RawExtract, MAX_EXTRACTS>>,
    pub(super) mode: Option<Text>,
    pub(super) encoding: Option<Text>,
    pub(super) optional: Option<bool>,
    pub(super) all_keys: Option<bool>,
    pub(super) unknown: UnknownFields,
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
    pub(super) unknown: UnknownFields,
}

impl RawExtract {
    /// The known fields.
    pub(super) const FIELDS: &'static [&'static str] = &["path", "objectAlias", "filePermission"];
}

/// The unknown fields of an object or item.
#[derive(Debug, Default)]
pub(super) struct UnknownFields {
    /// The first ones with their lines; no more are reported.
    pub(super) kept: Vec<(String, u64)>,
    /// The number of the others.
    pub(super) dropped: usize,
}

impl UnknownFields {
    fn add(&mut self, field: Spanned<String>) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push((field.value, field.referenced.line()));
        } else {
            self.dropped += 1;
        }
    }
}

/// A list of which the first `MAX` items are kept.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize> {
    /// The first items.
    pub(super) items: Vec<T>,
    /// The number of all items.
    pub(super) count: usize,
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            count: 0,
        }
    }
}

/// A value that knows the line on which it begins.
trait AtLine {
    fn at_line(self, line: u64) -> Self;
}

impl AtLine for RawObject {
    fn at_line(self, line: u64) -> Self {
        Self { line, ..self }
    }
}

impl AtLine for RawExtract {
    fn at_line(self, line: u64) -> Self {
        Self { line, ..self }
    }
}

impl<'de, T, const MAX: usize> Deserialize<'de> for Bounded<T, MAX>
where
    T: AtLine + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T, const MAX: usize> Visitor<'de> for Items<T, MAX>
        where
            T: AtLine + Deserialize<'de>,
        {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut read = Bounded::default();
                while read.items.len() < MAX {
                    let Some(item) = list.next_element::<Spanned<T>>()? else {
                        return Ok(read);
                    };
                    let line = item.referenced.line();
                    read.items.push(item.value.at_line(line));
                    read.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    read.count += 1;
                }
                Ok(read)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Parses the list. An empty text is an empty list.
///
/// serde-saphyr's limits stop alias bombs, deep nesting and repeated keys.
pub(super) fn parse(text: &str) -> Result<Bounded<RawObject, MAX_OBJECTS>, YamlFault> {
    let budget = serde_saphyr::budget! {
        max_events: 3 * MAX_NODES,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_documents: MAX_DEPTH,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
        max_merge_keys: MAX_ALIASES,
        max_recorded_anchor_events: MAX_NODES,
        max_recorded_anchor_bytes: 2 * MAX_OBJECTS_BYTES,
        max_total_scalar_bytes: 2 * MAX_OBJECTS_BYTES,
    };
    let options: Options = serde_saphyr::options! { with_snippet: false, budget: budget };
    type Document = Option<Bounded<RawObject, MAX_OBJECTS>>;
    let documents: Vec<Document> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| describe(&error, text))?;
    // A trailing `---` begins another document, which is empty.
    let mut lists = documents.into_iter().flatten();
    let list = lists.next().unwrap_or_default();
    if let Some(second) = lists.find_map(|list| list.items.into_iter().next()) {
        return Err(YamlFault {
            line: second.line,
            field: None,
            reason: "a second YAML document: put all objects into one list, without ---".to_owned(),
        });
    }
    Ok(list)
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
                        "jmesPath" => raw.extracts = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            raw.unknown.add(key);
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
                            raw.unknown.add(key);
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
