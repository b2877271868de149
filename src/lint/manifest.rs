//! Manifests as far as they are checked, each part with its line in the file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::kube::accounts::ANNOTATION;

/// A line of a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line(pub(super) u64);

/// A scalar, where its text begins, and whether it is a `|` block, whose lines are the file's.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) value: String,
    pub(super) line: Line,
    pub(super) block: bool,
}

/// A SecretProviderClass.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) line: Line,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) provider: Option<Scalar>,
    pub(super) parameters: Vec<(Scalar, Scalar)>,
    /// Every `secretObjects[].data[].objectName`.
    pub(super) synced: Vec<Scalar>,
}

impl Class {
    /// A parameter's value.
    pub(super) fn parameter(&self, name: &str) -> Option<&Scalar> {
        self.parameters
            .iter()
            .find(|(key, _)| key.value == name)
            .map(|(_, value)| value)
    }
}

/// A ServiceAccount.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) annotation: Option<Scalar>,
}

/// One document of a file.
#[derive(Debug)]
pub(super) enum Document {
    Class(Class),
    Account(Account),
    Other,
}

/// The documents of a file, or the line and reason why one cannot be read.
pub(super) fn documents(text: &str) -> Vec<Result<Document, (u64, String)>> {
    let mut found = Vec::new();
    let (mut begin, mut chunk) = (0, String::new());
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().copied().chain(["---"]).enumerate() {
        if line == "---" || line.starts_with("--- ") {
            if !chunk.trim().is_empty() {
                found.extend(document(&chunk, begin, &lines));
            }
            (begin, chunk) = (index as u64 + 1, String::new());
        } else {
            chunk.push_str(line);
            chunk.push('\n');
        }
    }
    found
}

/// The first SecretProviderClass of a manifest, as the driver reads it.
pub(crate) struct Example {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Reads a manifest that is known to be good.
pub(crate) fn example_class(text: &str) -> Option<Example> {
    documents(text)
        .into_iter()
        .find_map(|document| match document {
            Ok(Document::Class(class)) => Some(Example {
                namespace: class.namespace,
                name: class.name,
                parameters: (class.parameters.into_iter())
                    .map(|(key, value)| (key.value, value.value))
                    .collect(),
            }),
            _ => None,
        })
}

#[derive(Deserialize)]
struct Head {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: Option<String>,
    namespace: Option<String>,
    annotations: Option<BTreeMap<String, Option<Spanned<String>>>>,
}

#[derive(Deserialize)]
struct RawClass {
    metadata: RawMetadata,
    spec: Option<RawSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    provider: Option<Spanned<String>>,
    parameters: Option<BTreeMap<String, Spanned<String>>>,
    secret_objects: Option<Vec<RawSynced>>,
}

#[derive(Deserialize)]
struct RawSynced {
    data: Option<Vec<RawSyncedKey>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSyncedKey {
    object_name: Option<Spanned<String>>,
}

#[derive(Deserialize)]
struct RawAccount {
    metadata: RawMetadata,
}

fn document(chunk: &str, begin: u64, lines: &[&str]) -> Option<Result<Document, (u64, String)>> {
    let scalar = |spanned: Spanned<String>| {
        let line = begin + spanned.referenced.line();
        let above = lines
            .get(line.saturating_sub(2) as usize)
            .copied()
            .unwrap_or_default();
        let indicator = above.trim_end().rsplit(' ').next().unwrap_or_default();
        let block = indicator.starts_with('|') || indicator.starts_with('>');
        Scalar {
            value: spanned.value,
            line: Line(line),
            block,
        }
    };
    let head: Option<Head> = match read(chunk, begin) {
        Ok(head) => head,
        Err(error) => return Some(Err(error)),
    };
    let head = head?;
    if head.kind == "List" {
        let why = "a List is not looked into: write its items as documents parted by ---";
        return Some(Err((begin + 1, why.to_owned())));
    }
    let document = if head.kind == "SecretProviderClass"
        && head.api_version.starts_with("secrets-store.csi.x-k8s.io/")
    {
        read::<RawClass>(chunk, begin).map(|raw| {
            let spec = raw.spec.unwrap_or(RawSpec {
                provider: None,
                parameters: None,
                secret_objects: None,
            });
            let parameters = spec.parameters.unwrap_or_default();
            Document::Class(Class {
                line: Line(begin + 1),
                name: raw.metadata.name.unwrap_or_default(),
                namespace: raw.metadata.namespace.unwrap_or_default(),
                provider: spec.provider.map(scalar),
                parameters: parameters
                    .into_iter()
                    .map(|(key, value)| {
                        let value = scalar(value);
                        (
                            Scalar {
                                value: key,
                                line: value.line,
                                block: false,
                            },
                            value,
                        )
                    })
                    .collect(),
                synced: (spec.secret_objects.into_iter().flatten())
                    .flat_map(|object| object.data.unwrap_or_default())
                    .filter_map(|key| key.object_name.map(scalar))
                    .collect(),
            })
        })
    } else if head.kind == "ServiceAccount" {
        read::<RawAccount>(chunk, begin).map(|raw| {
            let mut annotations = raw.metadata.annotations.unwrap_or_default();
            Document::Account(Account {
                name: raw.metadata.name.unwrap_or_default(),
                namespace: raw.metadata.namespace.unwrap_or_default(),
                annotation: annotations.remove(ANNOTATION).flatten().map(scalar),
            })
        })
    } else {
        Ok(Document::Other)
    };
    Some(document)
}

fn read<T: serde::de::DeserializeOwned>(chunk: &str, begin: u64) -> Result<T, (u64, String)> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(chunk, options).map_err(|error| {
        let line = begin + error.location().map_or(1, |l| l.line());
        (
            line,
            error.to_string().lines().collect::<Vec<_>>().join(" "),
        )
    })
}
