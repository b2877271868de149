//! Rules for single fields and for the names of a whole list.

use std::collections::HashMap;

use jpx_core::Expression;

use super::growth;
use super::{Content, Encoding, MAX_JMESPATH_BYTES, Object, Problem, label, yaml::RawObject};
use crate::provider::paths;
use crate::store::Selector;

/// The add-on's rule: no objectName twice, and no alias equal to any other name or alias, nor to
/// its own object's name. Source: Huawei's CCE user guide, page cce_10_0370.
pub(super) fn check_names(raw: &[RawObject], problems: &mut Vec<Problem>) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, object) in raw.iter().enumerate() {
        let Some(name) = &object.name else { continue };
        if let Some(&first) = names.get(name.value.as_str()) {
            problems.push(Problem {
                line: name.line,
                object: Some(label(object, index)),
                field: Some("objectName".into()),
                reason: format!(
                    "is already named on line {}: a secret may stand in the list once",
                    raw[first].line
                ),
            });
        } else {
            names.insert(&name.value, index);
        }
    }
    let mut aliases: HashMap<&str, usize> = HashMap::new();
    for (index, object) in raw.iter().enumerate() {
        let Some(alias) = &object.alias else { continue };
        let other = if let Some(&owner) = names.get(alias.value.as_str()) {
            Some(format!("equals the objectName on line {}", raw[owner].line))
        } else {
            aliases
                .get(alias.value.as_str())
                .map(|&owner: &usize| format!("equals the objectAlias on line {}", raw[owner].line))
        };
        aliases.entry(&alias.value).or_insert(index);
        if let Some(other) = other {
            problems.push(Problem {
                line: alias.line,
                object: Some(label(object, index)),
                field: Some("objectAlias".into()),
                reason: format!("{:?} {other}: choose another name", alias.value),
            });
        }
    }
}

/// File names known before any call: no two equal, none a folder of another.
pub(super) fn check_files(objects: &[Object], problems: &mut Vec<Problem>) {
    let files: Vec<(&Object, &str)> = objects
        .iter()
        .flat_map(|object| match &object.content {
            Content::Whole { path, extracts } => std::iter::once(path.as_str())
                .chain(extracts.iter().map(|e| e.path.as_str()))
                .map(|path| (object, path))
                .collect(),
            Content::AllKeys { .. } => Vec::new(),
        })
        .collect();
    for clash in paths::clashes(files.iter().map(|(_, path)| *path)) {
        let (object, _) = files[clash.later];
        let (earlier, _) = files[clash.earlier];
        problems.push(Problem {
            line: object.line,
            object: Some(format!("object {:?}", object.name)),
            field: Some("objectAlias".into()),
            reason: format!(
                "{} (the other is of object {:?})",
                clash.reason, earlier.name
            ),
        });
    }
}

/// The text for a field that is not known, with the nearest one that is.
pub fn unknown(field: &str, known: &[&str]) -> String {
    match nearest(field, known) {
        Some(near) => format!("is not a field; did you mean {near}?"),
        None => format!("is not a field; known are {}", known.join(", ")),
    }
}

/// The known name that `name` is most likely a misspelling of.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// Names of secrets and stages. Source: CSMS API, CreateSecret.
pub(super) fn secret_name(name: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, _ or -".into())
    }
}

pub(super) fn version_rule(version: &str) -> Result<Selector, String> {
    if version == "latest" {
        return Ok(Selector::Latest);
    }
    let digits = version.strip_prefix('v').unwrap_or("");
    if (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Selector::Version(version.to_owned()));
    }
    let hint = if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) {
        format!("; did you mean v{version}?")
    } else {
        String::new()
    };
    Err(format!(
        "{version:?} is neither latest nor a version such as v1{hint}"
    ))
}

pub(super) fn encoding(text: &str) -> Result<Encoding, String> {
    match text {
        "utf-8" => Ok(Encoding::Utf8),
        "base64" => Ok(Encoding::Base64),
        "hex" => Ok(Encoding::Hex),
        other => Err(format!("{other:?} is not known: utf-8, base64 and hex are")),
    }
}

pub(super) fn compile(expression: &str) -> Result<Expression<'static>, String> {
    if expression.len() > MAX_JMESPATH_BYTES {
        return Err(format!(
            "the expression has {} bytes, more than {MAX_JMESPATH_BYTES}",
            expression.len()
        ));
    }
    let compiled = jpx_core::compile(expression).map_err(|error| {
        let hint = if expression.contains('-') && !expression.contains('"') {
            "; a key with a hyphen needs quotes: '\"my-key\"'"
        } else {
            ""
        };
        format!(
            "not a JMESPath expression (column {}): {}{hint}",
            error.column() + 1,
            error.reason
        )
    })?;
    if growth::copies(compiled.as_ast()) > growth::MAX_COPIES {
        return Err(format!(
            "the expression could multiply the secret by more than {}: write it as several items",
            growth::MAX_COPIES
        ));
    }
    Ok(compiled)
}
