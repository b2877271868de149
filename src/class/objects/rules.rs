//! Rules for single fields and for the names of a whole list.

use std::collections::HashMap;

use super::problems::{Problems, label};
use super::types::{Content, Encoding, Object};
use super::yaml::RawObject;
use crate::class::file_names;
use crate::cloud::{NAME_RULE, VersionSelector, is_valid_name};

/// The add-on's rule: no objectName twice, and no alias equal to any other name or alias, nor to
/// its own object's name. Source: Huawei's CCE user guide, page cce_10_0370.
pub(super) fn check_names(raw: &[RawObject], problems: &mut Problems) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, object) in raw.iter().enumerate() {
        let Some(name) = &object.name else { continue };
        if let Some(&first) = names.get(name.value.as_str()) {
            problems.add(name.line, &object.label(index), "objectName", || {
                format!(
                    "already used on line {}: list each secret once",
                    raw[first].line
                )
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
            problems.add(alias.line, &object.label(index), "objectAlias", || {
                format!("{:?} {other}: choose another name", alias.value)
            });
        }
    }
}

/// File names that are known before any call: no duplicates, and none is a directory of another.
pub(super) fn check_files(objects: &[Object], problems: &mut Problems) {
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
    for clash in file_names::clashes(files.iter().map(|(_, path)| *path)) {
        let (object, _) = files[clash.later];
        let (earlier, _) = files[clash.earlier];
        problems.add(
            object.line,
            &label(Some(&object.name), 0),
            "objectAlias",
            || {
                format!(
                    "{} (the other file belongs to object {:?})",
                    clash.reason, earlier.name
                )
            },
        );
    }
}

/// Names of secrets and stages.
pub(super) fn secret_name(name: &str) -> Result<String, String> {
    if is_valid_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!("must be {NAME_RULE}"))
    }
}

pub(super) fn version_rule(version: &str) -> Result<VersionSelector, String> {
    if version == "latest" {
        return Ok(VersionSelector::Latest);
    }
    let digits = version.strip_prefix('v').unwrap_or("");
    if (1..=10).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0')
    {
        return Ok(VersionSelector::Version(version.to_owned()));
    }
    let number = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let hint = match number.parse::<u32>() {
        Ok(number) if number > 0 => format!("; did you mean v{number}?"),
        _ => String::new(),
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
        other => Err(format!(
            "unknown encoding {other:?}: use utf-8, base64 or hex"
        )),
    }
}
