//! The policy file: from YAML text to checked rules.
//!
//! Whatever the file does not say clearly is an error and not a default: an empty list, for example, might mean
//! nothing or everything.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::glob::{Glob, GlobKind};
use super::problems::{PolicyProblem, PolicyProblems};
use super::rule::Rule;
use crate::class::suggestion::unknown_field;

/// Maximum size of the file, in bytes; a ConfigMap has the same limit.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;
/// Maximum number of rules.
pub const MAX_RULES: usize = 1000;
/// Maximum number of globs of all rules together.
pub const MAX_GLOBS: usize = 10_000;

/// The version of the format.
const VERSION: &str = "1";
const FIELDS: [&str; 2] = ["version", "rules"];
const RULE_FIELDS: [&str; 4] = ["namespaces", "secrets", "regions", "projects"];
/// Fields that a later version may have. A provider that ignored one would allow more than the rule says.
const LATER_FIELDS: [&str; 2] = ["agencies", "kmsKeys"];

/// A list of globs as written, and the line of its field.
struct RawGlobs {
    line: u64,
    /// `None` for a field without a value.
    items: Option<Vec<Spanned<String>>>,
}

/// A rule as written.
#[derive(Default)]
struct RawRule {
    /// Values of [`RULE_FIELDS`], in that order.
    globs: [Option<RawGlobs>; RULE_FIELDS.len()],
    /// Unknown fields, with their lines.
    unknown: Vec<(String, u64)>,
}

/// The file as written.
#[derive(Default)]
struct RawPolicy {
    version: Option<Spanned<String>>,
    /// The line of the field, and its value.
    rules: Option<(u64, Option<Vec<Spanned<RawRule>>>)>,
    unknown: Vec<(String, u64)>,
}

/// Reads and checks the rules.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Vec<PolicyProblem>> {
    let whole = |reason: String| vec![PolicyProblem::at(0, reason)];
    if text.len() > MAX_POLICY_BYTES {
        let size = text.len();
        return Err(whole(format!(
            "file too large: {size} bytes (limit {MAX_POLICY_BYTES})"
        )));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let raw: Option<RawPolicy> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            let reason = format!("not a policy in YAML: {error}");
            vec![PolicyProblem::at(line, reason)]
        })?;
    let Some(raw) = raw else {
        let reason =
            "the file is empty: write `version: 1` and `rules`; `rules: []` allows nothing";
        return Err(whole(reason.to_owned()));
    };
    check(raw)
}

fn check(raw: RawPolicy) -> Result<Vec<Rule>, Vec<PolicyProblem>> {
    let mut problems = PolicyProblems::default();
    match &raw.version {
        Some(version) if version.value == VERSION => {}
        Some(version) => {
            let reason = format!("unknown version {:?}: use 1", shown(&version.value));
            problems.add(version.referenced.line(), None, "version", reason);
        }
        None => problems.add(0, None, "version", "missing: set version: 1"),
    }
    for (field, line) in &raw.unknown {
        problems.add(*line, None, field, unknown_field(&shown(field), &FIELDS));
    }
    let rules = match raw.rules {
        Some((_, Some(rules))) => rules,
        Some((line, None)) => {
            let reason = "no value: write a list; `rules: []` allows nothing";
            problems.add(line, None, "rules", reason);
            Vec::new()
        }
        None => {
            let reason = "missing: write a list; `rules: []` allows nothing";
            problems.add(0, None, "rules", reason);
            Vec::new()
        }
    };
    if rules.len() > MAX_RULES {
        let reason = format!("too many rules: {} (limit {MAX_RULES})", rules.len());
        return Err(vec![PolicyProblem::at(0, reason)]);
    }
    let lists = rules
        .iter()
        .flat_map(|rule| rule.value.globs.iter().flatten());
    let globs: usize = lists
        .filter_map(|list| Some(list.items.as_ref()?.len()))
        .sum();
    if globs > MAX_GLOBS {
        let reason = format!("too many globs: {globs} (limit {MAX_GLOBS})");
        return Err(vec![PolicyProblem::at(0, reason)]);
    }
    let mut checked = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        let line = rule.referenced.line();
        checked.extend(check_rule(index + 1, line, &rule.value, &mut problems));
    }
    problems.into_result()?;
    Ok(checked)
}

/// Returns `None` if a field is missing or wrong, which is then one of the problems.
fn check_rule(
    number: usize,
    rule_line: u64,
    raw: &RawRule,
    problems: &mut PolicyProblems,
) -> Option<Rule> {
    for (field, line) in &raw.unknown {
        let reason = if LATER_FIELDS.contains(&field.as_str()) {
            format!("{field} is not supported by this release: remove it")
        } else {
            unknown_field(&shown(field), &RULE_FIELDS)
        };
        problems.add(*line, Some(number), field, reason);
    }
    let [namespaces, secrets, regions, projects] = &raw.globs;
    let mut globs = |at: usize, kind, list: &Option<RawGlobs>| {
        let list = list.as_ref()?;
        check_globs(number, RULE_FIELDS[at], kind, list, problems)
    };
    let checked = [
        globs(0, GlobKind::Namespace, namespaces),
        globs(1, GlobKind::Secret, secrets),
        globs(2, GlobKind::Region, regions),
        globs(3, GlobKind::Project, projects),
    ];
    for (at, field) in RULE_FIELDS.iter().enumerate().take(2) {
        if raw.globs[at].is_none() {
            let reason = "missing: list globs such as \"shop-*\", or \"*\" for all";
            problems.add(rule_line, Some(number), field, reason);
        }
    }
    let [namespaces, secrets, regions, projects] = checked;
    Some(Rule {
        namespaces: namespaces?,
        secrets: secrets?,
        regions,
        projects,
    })
}

fn check_globs(
    rule: usize,
    field: &str,
    kind: GlobKind,
    list: &RawGlobs,
    problems: &mut PolicyProblems,
) -> Option<Vec<Glob>> {
    let items = list.items.as_deref().unwrap_or_default();
    if items.is_empty() {
        let reason = match kind {
            GlobKind::Namespace | GlobKind::Secret => {
                "the list is empty: add a glob, or \"*\" for all"
            }
            GlobKind::Region | GlobKind::Project => {
                "the list is empty: add a glob, or remove the field to allow all"
            }
        };
        problems.add(list.line, Some(rule), field, reason);
    }
    let mut globs = Vec::with_capacity(items.len());
    for item in items {
        match Glob::new(kind, &item.value) {
            Ok(glob) => globs.push(glob),
            Err(reason) => problems.add(item.referenced.line(), Some(rule), field, reason),
        }
    }
    Some(globs)
}

/// The beginning of a text that is quoted or compared.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl<'de> Deserialize<'de> for RawRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RuleVisitor;
        impl<'de> Visitor<'de> for RuleVisitor {
            type Value = RawRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule with namespaces and secrets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawRule, A::Error> {
                let mut raw = RawRule::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    match RULE_FIELDS.iter().position(|field| *field == key.value) {
                        Some(at) => {
                            let items = map.next_value()?;
                            raw.globs[at] = Some(RawGlobs { line, items });
                        }
                        None => {
                            map.next_value::<IgnoredAny>()?;
                            raw.unknown.push((key.value, line));
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(RuleVisitor)
    }
}

impl<'de> Deserialize<'de> for RawPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PolicyVisitor;
        impl<'de> Visitor<'de> for PolicyVisitor {
            type Value = RawPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy with version and rules")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawPolicy, A::Error> {
                let mut raw = RawPolicy::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    match key.value.as_str() {
                        "version" => raw.version = map.next_value()?,
                        "rules" => raw.rules = Some((line, map.next_value()?)),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            raw.unknown.push((key.value, line));
                        }
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(PolicyVisitor)
    }
}
