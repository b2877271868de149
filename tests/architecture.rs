//! The layers, held by reading `use` lines, and the size of files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each part may name of the others. `provider → store → cloud`, and nothing points back.
const MAY_USE: [(&str, &[&str]); 13] = [
    ("secret", &[]),
    ("clock", &[]),
    ("interval", &[]),
    ("flight", &[]),
    ("observe", &["proto", "socket"]),
    ("cloud", &["clock", "observe", "secret"]),
    ("store", &["clock", "cloud", "flight", "observe", "secret"]),
    ("kube", &["clock", "flight"]),
    (
        "provider",
        &[
            "cloud", "interval", "kube", "observe", "proto", "secret", "store",
        ],
    ),
    (
        "rotation",
        &[
            "clock", "cloud", "interval", "kube", "observe", "proto", "provider", "socket", "store",
        ],
    ),
    ("apiserver", &[]),
    ("emulator", &["clock", "secret"]),
    ("driver", &["clock", "kube", "proto", "socket"]),
];

/// Crates that would tie a part to what it must not know.
const MUST_NOT_NAME: [(&str, &[&str]); 3] = [
    ("cloud", &["tonic", "prost", "kube::", "k8s_openapi"]),
    // It writes its file with prost.
    ("store", &["tonic", "kube::", "k8s_openapi"]),
    ("emulator", &["tonic", "prost", "kube::", "k8s_openapi"]),
];

const MOST_LINES: usize = 400;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The part that a file belongs to: its folder or its own name, below `src`.
fn part(file: &Path) -> String {
    let relative = file.strip_prefix(root().join("src")).unwrap();
    let first = relative
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn parts_point_down_only() {
    let mut wrong = Vec::new();
    for file in files(&root().join("src")) {
        let part = part(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may look up.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_test = file.ends_with("tests.rs") || file.ends_with("testing.rs");
        if let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == part)
            && !is_test
        {
            let used: BTreeSet<&str> = code
                .match_indices("crate::")
                .map(|(at, _)| &code[at + "crate::".len()..])
                .map(|rest| {
                    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap()
                })
                .collect();
            for other in used {
                if other != part && !other.is_empty() && !may.contains(&other) {
                    wrong.push(format!("{}: {part} uses {other}", file.display()));
                }
            }
        }
        if let Some((_, not)) = MUST_NOT_NAME.iter().find(|(name, _)| *name == part) {
            for line in code
                .lines()
                .filter(|line| line.trim_start().starts_with("use "))
            {
                for name in *not {
                    if line.contains(name) {
                        wrong.push(format!("{}: {line}", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut all = files(&root().join("src"));
    all.extend(files(&root().join("tests")));
    let long: Vec<_> = all
        .iter()
        .map(|file| (std::fs::read_to_string(file).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}
