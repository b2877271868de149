//! Rules for the file names in a volume, which are those of the driver's writer.
//!
//! Source: Secrets Store CSI Driver v1.6.0, `pkg/util/fileutil/{writer,atomic_writer}.go`. The driver
//! would fail the mount too, but late, and for `a` next to `a/b` in the middle of a write.

use std::collections::BTreeMap;

/// Longest path that the driver accepts, in bytes.
const MAX_PATH: usize = 4096;
/// Longest component of a path, in bytes.
const MAX_COMPONENT: usize = 255;

/// Checks the name of a file.
///
/// # Errors
/// Why `path` cannot be one.
pub fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("a file name must not be empty".into());
    }
    if path.len() > MAX_PATH {
        return Err(format!(
            "file name too long: {} bytes (limit {MAX_PATH})",
            path.len()
        ));
    }
    if path.starts_with('/') {
        return Err("a file name must be relative to the volume: remove the leading /".into());
    }
    if path.contains('\\') {
        return Err(
            "a file name must not contain a backslash; directories are separated by /".into(),
        );
    }
    if path.chars().any(char::is_control) {
        return Err("a file name must not contain control characters".into());
    }
    for (position, component) in path.split('/').enumerate() {
        match component {
            "" => return Err("a file name must not contain // or end in /".into()),
            "." | ".." => {
                return Err(format!(
                    "a file name must not contain the component {component:?}"
                ));
            }
            _ if position == 0 && component.starts_with("..") => {
                return Err("a file name must not start with .. (reserved by the driver)".into());
            }
            _ if component.len() > MAX_COMPONENT => {
                return Err(format!(
                    "component too long: {} bytes (limit {MAX_COMPONENT})",
                    component.len()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Two files that cannot be in one volume.
#[derive(Debug, PartialEq, Eq)]
pub struct Clash {
    /// Index of the second file.
    pub later: usize,
    /// Index of the file with which it collides.
    pub earlier: usize,
    /// The reason, for the user.
    pub reason: String,
}

/// Finds files with equal names, and files that would have to be directories.
pub fn clashes<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<Clash> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, path) in paths.into_iter().enumerate() {
        if let Some(&earlier) = seen.get(path) {
            found.push(Clash {
                later: index,
                earlier,
                reason: format!("the file name {path:?} is used twice"),
            });
            continue;
        }
        let above = path.match_indices('/').find_map(|(at, _)| {
            let folder = &path[..at];
            seen.get(folder).map(|&earlier| (folder, earlier))
        });
        if let Some((folder, earlier)) = above {
            found.push(Clash {
                later: index,
                earlier,
                reason: format!("{path:?} needs {folder:?} as a directory, but that is a file"),
            });
        }
        let below = format!("{path}/");
        if let Some((inner, &earlier)) = seen
            .range(below.as_str()..)
            .next()
            .filter(|(inner, _)| inner.starts_with(&below))
        {
            found.push(Clash {
                later: index,
                earlier,
                reason: format!("{inner:?} needs {path:?} as a directory, but that is a file"),
            });
        }
        seen.insert(path, index);
    }
    found
}

/// Parses an octal mode such as `0644`.
///
/// # Errors
/// Why `text` is not a valid mode.
pub fn mode(text: &str) -> Result<u32, String> {
    let rule = "use three or four octal digits with a read bit, such as \"0640\"";
    let hint = decimal_hint(text);
    if !(3..=4).contains(&text.len()) || !text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return Err(format!("{text:?} is not a file mode: {rule}{hint}"));
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode > 0o777 => Err(format!(
            "{text:?} sets special bits, which the driver does not support: {rule}"
        )),
        Ok(mode) if mode & 0o444 == 0 => Err(format!("{text:?} lets nobody read the file: {rule}")),
        Ok(mode) if !owner_may_most(mode) => Err(format!(
            "{text:?} lets group or others do what the owner may not: {rule}{hint}"
        )),
        Ok(mode) => Ok(mode),
        Err(_) => Err(format!("{text:?} is not a file mode: {rule}")),
    }
}

/// Whether group and others may do nothing that the owner may not. Anything else is a mistake, most often a
/// mode in decimal.
fn owner_may_most(mode: u32) -> bool {
    let (owner, group, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    (group | others) & !owner == 0
}

/// A hint for modes in decimal, as JSON manifests have them for the volumes of pods: 256 is 0400.
fn decimal_hint(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(mode) if (1..=0o777).contains(&mode) && mode & 0o444 != 0 && owner_may_most(mode) => {
            format!("; {text} in decimal is \"{mode:04o}\"")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_with_which_others_may_more_than_the_owner_are_rejected() {
        for good in ["0400", "440", "0640", "0755", "0777", "0500", "0744"] {
            assert_eq!(mode(good), Ok(u32::from_str_radix(good, 8).unwrap()));
        }
        for (bad, hint) in [
            ("256", "\"0400\""),
            ("420", "\"0644\""),
            ("292", "\"0444\""),
            ("0044", "owner"),
            ("0466", "owner"),
            ("0246", "owner"),
        ] {
            let why = mode(bad).unwrap_err();
            assert!(why.contains(hint), "{why}");
        }
    }
}
