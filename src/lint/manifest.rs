//! The parts of manifests that are checked, each with its line.

use std::ops::Range;

use serde_saphyr::Spanned;

use super::node::{Field, Node, NodeValue};
use crate::util::yaml::describe;

/// A scalar, and where its text is in the file.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) value: String,
    /// Line, from 1.
    pub(super) line: u64,
    /// Whether YAML reads it as text, as the API server requires.
    pub(super) is_text: bool,
    /// The lines of the file for those of the text, if it is a block.
    block: Vec<u64>,
}

impl Scalar {
    /// The line of the file for line `inner` of this scalar's text; 0 is the scalar as a whole.
    pub(super) fn inner_line(&self, inner: u64) -> u64 {
        let index = usize::try_from(inner).unwrap_or(0).checked_sub(1);
        match index.and_then(|index| self.block.get(index)) {
            Some(line) => *line,
            None => self.line,
        }
    }
}

/// A named scalar.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Line of the name, from 1.
    pub(super) line: u64,
    pub(super) value: Scalar,
}

/// What all objects have.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) line: u64,
    pub(super) api_version: Option<Scalar>,
    pub(super) kind: Scalar,
    pub(super) name: String,
    /// `default` if the manifest names none.
    pub(super) namespace: String,
    pub(super) annotations: Vec<Entry>,
}

/// A SecretProviderClass.
#[derive(Debug)]
pub(super) struct ClassManifest {
    pub(super) header: Header,
    pub(super) provider: Option<Scalar>,
    pub(super) parameters: Vec<Entry>,
    /// Every `secretObjects[].data[].objectName`.
    pub(super) synced: Vec<Scalar>,
}

impl ClassManifest {
    /// A parameter's value.
    pub(super) fn parameter(&self, name: &str) -> Option<&Scalar> {
        let found = self.parameters.iter().find(|entry| entry.name == name);
        found.map(|entry| &entry.value)
    }
}

/// A Pod, or an object with a template of one.
#[derive(Debug)]
pub(super) struct PodManifest {
    pub(super) header: Header,
    /// Those of the template.
    pub(super) annotations: Vec<Entry>,
    /// `default` if the manifest names none.
    pub(super) account: String,
    pub(super) volumes: Vec<CsiVolume>,
}

/// A CSI volume of a pod.
#[derive(Debug)]
pub(super) struct CsiVolume {
    pub(super) line: u64,
    pub(super) driver: Scalar,
    pub(super) attributes: Vec<Entry>,
}

/// An object of a file.
#[derive(Debug)]
pub(super) enum ManifestObject {
    Class(ClassManifest),
    ServiceAccount(Header),
    Pod(PodManifest),
    Other(Header),
}

/// Why a document cannot be read.
#[derive(Debug)]
pub(super) struct ManifestError {
    /// Line, from 1.
    pub(super) line: u64,
    pub(super) field: Option<String>,
    pub(super) reason: String,
}

/// The kinds whose pods are followed, the path to their pod, and the API version that has them.
pub(super) const WORKLOADS: [(&str, &[&str], &str); 7] = [
    ("Pod", &[], "v1"),
    ("Deployment", &["spec", "template"], "apps/v1"),
    ("StatefulSet", &["spec", "template"], "apps/v1"),
    ("DaemonSet", &["spec", "template"], "apps/v1"),
    ("ReplicaSet", &["spec", "template"], "apps/v1"),
    ("Job", &["spec", "template"], "batch/v1"),
    (
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
        "batch/v1",
    ),
];
pub(super) const CLASS: &str = "SecretProviderClass";
pub(super) const ACCOUNT: &str = "ServiceAccount";
/// Lists in lists, which nobody writes.
const MAX_DEPTH: u32 = 4;

/// The objects of a file, with those of lists, or why a document cannot be read.
pub(super) fn objects(text: &str) -> Vec<Result<ManifestObject, ManifestError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut begin = 0;
    for end in 0..=lines.len() {
        let is_end = lines.get(end).is_none_or(|line| {
            *line == "---" || line.starts_with("--- ") || line.starts_with("---\t")
        });
        if is_end {
            document(&lines, begin..end, &mut found);
            begin = end + 1;
        }
    }
    found
}

fn document(
    lines: &[&str],
    range: Range<usize>,
    found: &mut Vec<Result<ManifestObject, ManifestError>>,
) {
    let offset = range.start as u64;
    let text = lines[range].join("\n");
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed: Result<Option<Spanned<NodeValue>>, _> =
        serde_saphyr::from_str_with_options(&text, options);
    match parsed {
        Ok(None) => {}
        Ok(Some(node)) => Reader { lines, offset }.object(&node.into(), 0, found),
        Err(error) => {
            if text.trim().is_empty() {
                return;
            }
            let fault = describe(&error, &text);
            found.push(Err(ManifestError {
                line: offset + fault.line.max(1),
                field: fault.field,
                reason: fault.reason,
            }));
        }
    }
}

/// Reads the objects of a document that begins after `offset` lines of the file.
struct Reader<'a> {
    lines: &'a [&'a str],
    offset: u64,
}

impl Reader<'_> {
    fn object(
        &self,
        node: &Node,
        depth: u32,
        found: &mut Vec<Result<ManifestObject, ManifestError>>,
    ) {
        if node.is_nothing() {
            return;
        }
        let kind = node.text(&["kind"]);
        if kind.ends_with("List")
            && depth < MAX_DEPTH
            && let Some(items) = node.get("items")
        {
            for item in items.items() {
                // The items of a typed list need not repeat its kind.
                let item = with_kind(item, node, kind);
                self.object(&item, depth + 1, found);
            }
            return;
        }
        let Some(header) = self.header(node) else {
            found.push(Err(ManifestError {
                line: self.offset + node.line.max(1),
                field: None,
                reason: "not a Kubernetes object: it has no kind".to_owned(),
            }));
            return;
        };
        found.push(Ok(if kind == CLASS {
            ManifestObject::Class(self.class(node, header))
        } else if kind == ACCOUNT {
            ManifestObject::ServiceAccount(header)
        } else if let Some((_, path, _)) = WORKLOADS.iter().find(|(name, ..)| *name == kind) {
            ManifestObject::Pod(self.pod(node, path, header))
        } else {
            ManifestObject::Other(header)
        }));
    }

    fn header(&self, node: &Node) -> Option<Header> {
        let or_default = |text: &str| match text {
            "" => "default".to_owned(),
            text => text.to_owned(),
        };
        Some(Header {
            line: self.offset + node.line.max(1),
            api_version: node
                .field(&["apiVersion"])
                .and_then(|field| self.scalar(field)),
            kind: node.field(&["kind"]).and_then(|field| self.scalar(field))?,
            name: node.text(&["metadata", "name"]).to_owned(),
            namespace: or_default(node.text(&["metadata", "namespace"])),
            annotations: self.entries(node.at(&["metadata", "annotations"])),
        })
    }

    fn class(&self, node: &Node, header: Header) -> ClassManifest {
        let synced = node.at(&["spec", "secretObjects"]).into_iter();
        let data = synced
            .flat_map(Node::items)
            .filter_map(|object| object.get("data"));
        ClassManifest {
            provider: node
                .field(&["spec", "provider"])
                .and_then(|field| self.scalar(field)),
            parameters: self.entries(node.at(&["spec", "parameters"])),
            synced: data
                .flat_map(Node::items)
                .filter_map(|key| self.scalar(key.field(&["objectName"])?))
                .collect(),
            header,
        }
    }

    fn pod(&self, node: &Node, path: &[&str], header: Header) -> PodManifest {
        let empty = Node::default();
        let template = node.at(path).unwrap_or(&empty);
        let spec = template.get("spec").unwrap_or(&empty);
        let account = ["serviceAccountName", "serviceAccount"]
            .into_iter()
            .map(|name| spec.text(&[name]))
            .find(|name| !name.is_empty());
        let volumes = spec.get("volumes").into_iter().flat_map(Node::items);
        PodManifest {
            annotations: match path {
                [] => Vec::new(),
                _ => self.entries(template.at(&["metadata", "annotations"])),
            },
            account: account.unwrap_or("default").to_owned(),
            volumes: volumes
                .filter_map(|volume| {
                    let csi = volume.field(&["csi"])?;
                    Some(CsiVolume {
                        line: self.offset + csi.line,
                        driver: self.scalar(csi.node.field(&["driver"])?)?,
                        attributes: self.entries(csi.node.get("volumeAttributes")),
                    })
                })
                .collect(),
            header,
        }
    }

    fn entries(&self, node: Option<&Node>) -> Vec<Entry> {
        let fields = node.into_iter().flat_map(Node::fields);
        fields
            .filter_map(|field| {
                Some(Entry {
                    name: field.name.clone(),
                    line: self.offset + field.line,
                    value: self.scalar(field)?,
                })
            })
            .collect()
    }

    /// The value of a field, if it is a scalar.
    fn scalar(&self, field: &Field) -> Option<Scalar> {
        let (value, is_text) = match &field.node.value {
            NodeValue::Text(text) => (text.clone(), true),
            NodeValue::Scalar(text) => (text.clone(), false),
            NodeValue::Nothing => (String::new(), true),
            NodeValue::List(_) | NodeValue::Fields(_) => (String::new(), false),
        };
        let (first, folded) = match self.block(field) {
            Some((header, folded)) => (header + 1, folded),
            None => {
                return Some(Scalar {
                    value,
                    line: self.offset + field.node.line.max(field.line),
                    is_text,
                    block: Vec::new(),
                });
            }
        };
        Some(Scalar {
            block: self.block_lines(&value, first, folded),
            line: first as u64,
            value,
            is_text,
        })
    }

    /// The line of a block's indicator, from 1, and whether its lines are folded.
    fn block(&self, field: &Field) -> Option<(usize, bool)> {
        let line = usize::try_from(self.offset + field.line).ok()?;
        let text = self.lines.get(line.checked_sub(1)?)?;
        let after = text
            .find(&field.name)
            .map(|at| &text[at + field.name.len()..])?;
        let after = after
            .trim_start_matches(['"', '\''])
            .trim_start()
            .strip_prefix(':')?;
        // A remark, and what else may precede the indicator: a tag or an anchor.
        let after = after.split(" #").next().unwrap_or_default();
        let mut words = after.split_whitespace();
        let word = words.find(|word| !word.starts_with(['!', '&']))?;
        let is_header = word[1..]
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-' || b == b'+');
        match word.as_bytes().first()? {
            b'|' if is_header => Some((line, false)),
            b'>' if is_header => Some((line, true)),
            _ => None,
        }
    }

    /// The line of the file for each line of a block's text, which begins on line `first`.
    fn block_lines(&self, value: &str, first: usize, folded: bool) -> Vec<u64> {
        let mut next = first;
        let mut found = Vec::new();
        for line in value.lines() {
            if folded {
                // Folding joins lines, so that a line of the text begins where one of the file does.
                let begins = |at: &usize| {
                    let source = self.lines.get(at - 1).map_or("", |line| line.trim());
                    !source.is_empty() && line.trim_start().starts_with(source)
                };
                let until = (next + MAX_FOLDED).min(self.lines.len());
                next = (next..=until).find(begins).unwrap_or(next);
            }
            found.push(next as u64);
            next += 1;
        }
        found
    }
}

/// Most lines that are joined into one.
const MAX_FOLDED: usize = 1000;

/// An item of a list, with the kind and API version that a typed list gives it.
fn with_kind(item: &Node, list: &Node, kind: &str) -> Node {
    let mut item = item.clone();
    let typed = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
    if let (Some(kind), NodeValue::Fields(fields)) = (typed, &mut item.value) {
        let missing = |fields: &[Field], name: &str| fields.iter().all(|field| field.name != name);
        let line = item.line;
        let mut add = |name: &str, text: &str| {
            if missing(fields, name) && !text.is_empty() {
                fields.push(Field {
                    name: name.to_owned(),
                    line,
                    node: Node {
                        line,
                        value: NodeValue::Text(text.to_owned()),
                    },
                });
            }
        };
        add("kind", kind);
        add("apiVersion", list.text(&["apiVersion"]));
    }
    item
}
