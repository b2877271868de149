//! The parts of manifests that are checked, each with its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::kube::service_accounts::ANNOTATION;

/// A scalar, the line on which its text starts (from 1), and whether it is a block scalar, whose lines are
/// lines of the file.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) value: String,
    pub(super) line: u64,
    pub(super) block: bool,
}

impl Scalar {
    /// The line of the file for line `inner` of this scalar's text.
    pub(super) fn inner_line(&self, inner: u64) -> u64 {
        match (inner, self.block) {
            (0, _) | (_, false) => self.line,
            (inner, true) => self.line + inner - 1,
        }
    }
}

/// A SecretProviderClass.
#[derive(Debug)]
pub(super) struct ClassManifest {
    pub(super) line: u64,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) provider: Option<Scalar>,
    pub(super) parameters: Vec<(Scalar, Scalar)>,
    /// Every `secretObjects[].data[].objectName`.
    pub(super) synced: Vec<Scalar>,
}

impl ClassManifest {
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
pub(super) struct ServiceAccountManifest {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) annotation: Option<Scalar>,
}

/// One document of a file.
#[derive(Debug)]
pub(super) enum ManifestDocument {
    Class(ClassManifest),
    ServiceAccount(ServiceAccountManifest),
    Other,
}

/// The documents of a file, or the line and reason of those that cannot be parsed.
pub(super) fn documents(text: &str) -> Vec<Result<ManifestDocument, (u64, String)>> {
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

fn document(
    chunk: &str,
    begin: u64,
    lines: &[&str],
) -> Option<Result<ManifestDocument, (u64, String)>> {
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
            line,
            block,
        }
    };
    let head: Option<Head> = match read(chunk, begin) {
        Ok(head) => head,
        Err(error) => return Some(Err(error)),
    };
    let head = head?;
    if head.kind == "List" {
        let why = "a List is not supported: write its items as documents separated by ---";
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
            ManifestDocument::Class(ClassManifest {
                line: begin + 1,
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
            ManifestDocument::ServiceAccount(ServiceAccountManifest {
                name: raw.metadata.name.unwrap_or_default(),
                namespace: raw.metadata.namespace.unwrap_or_default(),
                annotation: annotations.remove(ANNOTATION).flatten().map(scalar),
            })
        })
    } else {
        Ok(ManifestDocument::Other)
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
