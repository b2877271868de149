//! The map of the code: what each part may use, no circles between files, one name for one type.
//!
//! Read from the syntax trees of `src/`, without the unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use syn::visit::{self, Visit};

/// The parts, and what each may use in addition to itself and the parts below it. A file belongs to the
/// part with the longest matching path.
const PARTS: [(&str, &[&str]); 41] = [
    // Knows neither the cloud nor Kubernetes.
    ("util", &[]),
    ("proto", &[]),
    ("telemetry", &[]),
    // Messages of Huawei's Encryption SDK. Keys come in through a trait; only `kms_keys` knows the cloud.
    ("envelope_sdk", &["util"]),
    // The cloud, from the ground up: errors and keys know no connections, connections know no keys, the call
    // loop is above both, and the clients of services are above that.
    ("cloud/error", &["util"]),
    ("cloud/retry", &[]),
    ("cloud/rate_limit", &[]),
    ("cloud/region", &["util"]),
    ("cloud/config", &["cloud/region"]),
    (
        "cloud/endpoints",
        &["cloud/config", "cloud/error", "cloud/region", "util"],
    ),
    ("cloud/permission", &["cloud/error"]),
    ("cloud/response", &["cloud/error", "cloud/retry", "util"]),
    ("cloud/sign", &[]),
    (
        "cloud/transport",
        &[
            "cloud/error",
            "cloud/response",
            "cloud/retry",
            "telemetry",
            "util",
        ],
    ),
    (
        "cloud/credentials",
        &[
            "cloud/error",
            "cloud/response",
            "cloud/transport",
            "telemetry",
            "util",
        ],
    ),
    (
        "cloud/call",
        &[
            "cloud/credentials",
            "cloud/error",
            "cloud/permission",
            "cloud/rate_limit",
            "cloud/response",
            "cloud/retry",
            "cloud/sign",
            "cloud/transport",
            "telemetry",
            "util",
        ],
    ),
    ("cloud", &["telemetry", "util"]),
    // Encrypted files. Knows neither the cloud nor Kubernetes.
    ("envelope", &["util"]),
    ("envelope/kms_keys", &["cloud", "envelope", "util"]),
    ("envelope_sdk/kms_keys", &["cloud", "envelope_sdk", "util"]),
    ("signature", &["cloud", "util"]),
    ("kube", &["class", "util"]),
    // What a SecretProviderClass says.
    ("class", &["cloud", "util"]),
    // What the operator allows.
    ("policy", &["class", "telemetry"]),
    ("cache", &["cloud", "telemetry", "util"]),
    // A node. Nothing in it knows the controller, and the pipeline of a Mount and delivery meet only in the
    // volumes and the cache.
    ("node/hardening", &[]),
    ("node/readiness", &[]),
    ("node/socket", &["proto"]),
    ("node/pod_credentials", &["class", "cloud", "util"]),
    (
        "node/volumes",
        &["cache", "class", "cloud", "kube", "node/pod_credentials"],
    ),
    (
        "node/mount",
        &[
            "cache",
            "class",
            "cloud",
            "kube",
            "node/pod_credentials",
            "node/volumes",
            "policy",
            "proto",
            "telemetry",
            "util",
        ],
    ),
    (
        "node/delivery",
        &[
            "cache",
            "class",
            "cloud",
            "kube",
            "node/socket",
            "node/volumes",
            "policy",
            "proto",
            "telemetry",
            "util",
        ],
    ),
    (
        "node/admin",
        &["node/readiness", "node/socket", "proto", "telemetry"],
    ),
    ("node", &[]),
    // The leader. It knows nothing of nodes.
    (
        "controller",
        &[
            "cache",
            "class",
            "cloud",
            "kube",
            "policy",
            "telemetry",
            "util",
        ],
    ),
    ("lint", &["class", "cloud", "kube", "policy", "util"]),
    (
        "serve",
        &[
            "cache",
            "class",
            "cloud",
            "controller",
            "kube",
            "node",
            "policy",
            "proto",
            "telemetry",
            "util",
        ],
    ),
    // The stand-ins know the product as little as possible.
    ("sim/huawei", &["util"]),
    ("sim/kubernetes", &[]),
    ("sim/csi_driver", &["kube", "node/socket", "proto", "util"]),
    (
        "sim",
        &["cloud", "lint", "node", "serve", "telemetry", "util"],
    ),
];

/// What may use everything.
const TOP: [&str; 3] = ["cli", "main", "lib"];

/// Crates that a part must not know.
const FOREIGN: [(&str, &[&str]); 7] = [
    (
        "signature",
        &["clap", "http", "hyper", "kube", "k8s_openapi", "tonic"],
    ),
    (
        "envelope_sdk",
        &["clap", "http", "hyper", "kube", "k8s_openapi", "tonic"],
    ),
    ("cloud", &["tonic", "prost", "kube", "k8s_openapi"]),
    // Snapshots are written with prost.
    ("cache", &["tonic", "kube", "k8s_openapi"]),
    ("class", &["tonic", "prost", "kube", "k8s_openapi"]),
    (
        "envelope",
        &[
            "clap",
            "http",
            "hyper",
            "tonic",
            "prost",
            "kube",
            "k8s_openapi",
        ],
    ),
    ("sim/huawei", &["tonic", "prost", "kube", "k8s_openapi"]),
];

/// A module path, such as `["cloud", "csms"]`.
type ModulePath = Vec<String>;

/// A source file.
struct Source {
    /// Path below `src`, without the extension, such as `cloud/csms/mod`.
    name: String,
    module: ModulePath,
    syntax: syn::File,
}

impl Source {
    fn is_facade(&self) -> bool {
        self.name.ends_with("/mod")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).unwrap().with_extension("");
            let name = relative.to_str().unwrap().to_owned();
            if name.ends_with("tests") || name.ends_with("testing") {
                continue;
            }
            let module = name.trim_end_matches("/mod").split('/');
            let module = module.filter(|part| *part != "lib").map(ToOwned::to_owned);
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source {
                module: module.collect(),
                syntax: syn::parse_file(&text).unwrap(),
                name,
            });
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// Collects the paths that a file refers to, and the types that it defines and extends.
#[derive(Default)]
struct References {
    /// Paths in `use` items that are not re-exports, and in code.
    paths: Vec<Vec<String>>,
    /// `pub use` items: exported name, path.
    exports: Vec<(String, Vec<String>)>,
    types: Vec<String>,
    inherent_impls: Vec<String>,
    modules: BTreeSet<String>,
    /// How many modules inside the file surround the current item.
    inline_modules: usize,
}

impl References {
    /// Adds a path as seen from the file's own module.
    fn add_path(&mut self, path: Vec<String>) {
        let supers = path.iter().take_while(|segment| *segment == "super");
        let inside = supers.count().min(self.inline_modules);
        self.paths.push(path[inside..].to_vec());
    }

    fn flatten(&mut self, prefix: &[String], tree: &syn::UseTree, is_export: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let mut prefix = prefix.to_vec();
                prefix.push(path.ident.to_string());
                self.flatten(&prefix, &path.tree, is_export);
            }
            syn::UseTree::Name(name) => {
                self.add(prefix, &name.ident.to_string(), &name.ident, is_export);
            }
            syn::UseTree::Rename(rename) => {
                self.add(prefix, &rename.ident.to_string(), &rename.rename, is_export);
            }
            syn::UseTree::Glob(_) => self.add_path(prefix.to_vec()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.flatten(prefix, tree, is_export);
                }
            }
        }
    }

    fn add(&mut self, prefix: &[String], name: &str, as_name: &syn::Ident, is_export: bool) {
        let mut path = prefix.to_vec();
        if name != "self" {
            path.push(name.to_owned());
        }
        if is_export {
            self.exports.push((as_name.to_string(), path));
        } else {
            self.add_path(path);
        }
    }
}

impl<'ast> Visit<'ast> for References {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => {
                self.modules.insert(item.ident.to_string());
                &item.attrs
            }
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_test_only(attributes) {
            return;
        }
        match item {
            syn::Item::Use(item) => {
                let is_export = !matches!(item.vis, syn::Visibility::Inherited);
                self.flatten(&[], &item.tree, is_export);
            }
            syn::Item::Struct(item) => self.types.push(item.ident.to_string()),
            syn::Item::Enum(item) => self.types.push(item.ident.to_string()),
            syn::Item::Trait(item) => self.types.push(item.ident.to_string()),
            syn::Item::Type(item) => self.types.push(item.ident.to_string()),
            syn::Item::Impl(item) if item.trait_.is_none() => {
                if let syn::Type::Path(path) = &*item.self_ty {
                    let name = &path.path.segments.last().unwrap().ident;
                    self.inherent_impls.push(name.to_string());
                }
            }
            _ => {}
        }
        let is_module = matches!(item, syn::Item::Mod(_));
        self.inline_modules += usize::from(is_module);
        visit::visit_item(self, item);
        self.inline_modules -= usize::from(is_module);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test_only(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    /// `pub(super)` and `pub(in path)` refer to nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|s| s.ident.to_string());
        self.add_path(segments.collect());
        visit::visit_path(self, path);
    }
}

/// All sources with what they refer to.
struct Map {
    sources: Vec<Source>,
    references: Vec<References>,
    by_module: BTreeMap<ModulePath, usize>,
}

impl Map {
    fn read() -> Self {
        let sources = sources();
        let references = sources.iter().map(|source| {
            let mut references = References::default();
            references.visit_file(&source.syntax);
            references
        });
        let references = references.collect();
        let by_module = sources.iter().enumerate();
        let by_module = by_module.map(|(index, source)| (source.module.clone(), index));
        Self {
            by_module: by_module.collect(),
            references,
            sources,
        }
    }

    /// The file that a path refers to, seen through the re-exports of facades.
    fn target(&self, from: usize, path: &[String]) -> Option<usize> {
        let source = &self.sources[from];
        let mut module: ModulePath;
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                module = Vec::new();
                rest = &rest[1..];
            }
            "self" | "super" => {
                module = source.module.clone();
                while let Some(first) = rest.first() {
                    match first.as_str() {
                        "self" => {}
                        "super" => drop(module.pop()),
                        _ => break,
                    }
                    rest = &rest[1..];
                }
            }
            first if self.references[from].modules.contains(first) => {
                module = source.module.clone();
            }
            _ => return None,
        }
        while let Some(next) = rest.first() {
            let mut deeper = module.clone();
            deeper.push(next.clone());
            if !self.by_module.contains_key(&deeper) {
                break;
            }
            module = deeper;
            rest = &rest[1..];
        }
        let index = *self.by_module.get(&module)?;
        if let Some(name) = rest.first() {
            let exports = &self.references[index].exports;
            if let Some((_, path)) = exports.iter().find(|(export, _)| export == name) {
                return self.target(index, path).or(Some(index));
            }
        }
        Some(index)
    }

    /// The files that each file uses.
    fn edges(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, references) in self.references.iter().enumerate() {
            let exports = references.exports.iter().map(|(_, path)| path);
            // A facade hands names on; that it names its parts ties it to nothing.
            let exports = exports.filter(|_| !self.sources[from].is_facade());
            for path in references.paths.iter().chain(exports) {
                if let Some(to) = self.target(from, path).filter(|to| *to != from) {
                    edges.entry(from).or_default().insert(to);
                }
            }
        }
        assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 300);
        edges
    }
}

/// The part to which a file belongs.
fn part(name: &str) -> &'static str {
    let name = name.trim_end_matches("/mod");
    let is_in = |part: &str| name == part || name.starts_with(&format!("{part}/"));
    let parts = PARTS.iter().map(|(part, _)| *part).chain(TOP);
    let part = parts
        .filter(|part| is_in(part))
        .max_by_key(|part| part.len());
    part.unwrap_or_else(|| panic!("src/{name} belongs to no part of the map"))
}

fn may_use(from: &str, to: &str) -> bool {
    let is_below =
        |part: &str, above: &str| part == above || part.starts_with(&format!("{above}/"));
    let allowed = PARTS.iter().find(|(part, _)| *part == from);
    let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
    TOP.contains(&from) || is_below(to, from) || allowed.iter().any(|part| is_below(to, part))
}

#[test]
fn parts_use_only_what_the_map_allows() {
    let map = Map::read();
    let mut wrong = BTreeSet::new();
    for (from, targets) in map.edges() {
        for to in targets {
            let (from, to) = (&map.sources[from].name, &map.sources[to].name);
            if !may_use(part(from), part(to)) {
                wrong.insert(format!("{from} uses {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn parts_do_not_know_foreign_crates() {
    let map = Map::read();
    let mut wrong = BTreeSet::new();
    for (source, references) in map.sources.iter().zip(&map.references) {
        for (part, crates) in FOREIGN {
            if !source.name.starts_with(&format!("{part}/")) {
                continue;
            }
            for path in references.paths.iter().filter(|path| path.len() > 1) {
                if crates.contains(&path[0].as_str()) && !references.modules.contains(&path[0]) {
                    wrong.insert(format!("{} uses {}", source.name, path.join("::")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_form_no_circles() {
    let map = Map::read();
    let uses = map.edges().into_iter();
    let uses = uses.flat_map(|(from, targets)| targets.into_iter().map(move |to| (from, to)));
    let graph: DiGraphMap<_, (), std::collections::hash_map::RandomState> = uses.collect();
    let circles = tarjan_scc(&graph)
        .into_iter()
        .filter(|files| files.len() > 1);
    let named = circles.map(|files| {
        files
            .iter()
            .map(|file| map.sources[*file].name.as_str())
            .collect()
    });
    let circles: Vec<Vec<&str>> = named.collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_name_stands_for_at_most_two_types() {
    let map = Map::read();
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (source, references) in map.sources.iter().zip(&map.references) {
        for name in &references.types {
            files.entry(name).or_default().push(&source.name);
        }
    }
    files.retain(|_, files| files.len() > 2);
    assert!(files.is_empty(), "{files:#?}");
}

#[test]
fn a_type_is_implemented_in_one_file() {
    let map = Map::read();
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (source, references) in map.sources.iter().zip(&map.references) {
        for name in &references.inherent_impls {
            // A second type of the same name has its own file.
            if references.types.contains(name) {
                continue;
            }
            files.entry(name).or_default().insert(&source.name);
        }
    }
    assert!(
        files.is_empty(),
        "implemented away from the definition: {files:#?}"
    );
}
