//! Step 6, files: what was selected, as the driver takes it, within its limits.

use ring::digest::{Context, SHA256};

use super::error::{MountError, ObjectError, Reason};
use super::fetch::Fetched;
use super::paths;
use super::resolve::Planned;
use super::select::{Selected, select};
use super::spec::Content;
use crate::proto::{File, MountResponse, ObjectVersion};

/// The driver refuses answers over 4 MiB with a code that leaves the pod an empty folder, so ours
/// stay below, with room for the message around the files.
pub(super) const MAX_RESPONSE: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Stands in the volume of a pod all of whose objects are optional and missing: the driver fails a
/// mount without an object version, and takes one without files as "keep the old ones".
const PLACEHOLDER: &str = ".dew-provider";

/// The answer for everything that was fetched, in order of paths.
pub fn files(fetched: &[Fetched], default_mode: u32) -> Result<MountResponse, MountError> {
    let mut failures = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut room = MAX_RESPONSE;
    for item in fetched {
        let Some(secret) = &item.secret else { continue };
        match select(&item.planned.object, &secret.value, &mut room) {
            Ok(selected) => entries.extend(selected.into_iter().map(|file| {
                let mode = file.mode.unwrap_or(default_mode);
                Entry {
                    version: version(item, &file, mode),
                    object: &item.planned.object.name,
                    file,
                    mode,
                }
            })),
            Err(failure) => failures.push(failure),
        }
        if room == 0 {
            break; // all that follow would fail too
        }
    }
    if !failures.is_empty() {
        return Err(MountError::of_objects(&failures));
    }
    // All other names were checked with the list, before any call.
    let has_keys = |item: &Fetched| matches!(item.planned.object.content, Content::AllKeys { .. });
    if fetched.iter().any(has_keys) {
        check_clashes(&entries)?;
    }
    if entries.is_empty() {
        return Ok(placeholder());
    }
    entries.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    let mut response = MountResponse::default();
    for entry in entries {
        response.object_version.push(ObjectVersion {
            id: entry.file.path.clone(),
            version: entry.version,
        });
        response.files.push(File {
            path: entry.file.path,
            mode: entry.mode as i32,
            contents: entry.file.contents.into_bytes(),
        });
    }
    Ok(response)
}

/// A file on its way into the answer.
struct Entry<'a> {
    object: &'a str,
    file: Selected,
    mode: u32,
    version: String,
}

/// `<vN>-<8 hex>`: moves whenever a byte of the file can, without being derived from the value.
///
/// A version of a secret never changes its value, so its place, number and date and the file's own
/// settings decide the bytes. A hash of the value would let readers of pod status objects guess
/// short passwords.
fn version(item: &Fetched, file: &Selected, mode: u32) -> String {
    let Planned { object, .. } = &item.planned;
    let Some(secret) = &item.secret else {
        return String::new();
    };
    let mut digest = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(item.caller.region.as_str().as_bytes());
    let project = item.caller.project.as_deref();
    add(project.unwrap_or_default().as_bytes());
    add(object.name.as_bytes());
    add(secret.id.as_bytes());
    add(&secret.create_time.to_be_bytes());
    add(file.path.as_bytes());
    add(&mode.to_be_bytes());
    add(file.origin.as_bytes());
    add(&[object.encoding as u8]);
    let digest = digest.finish();
    let hex = data_encoding::HEXLOWER.encode(&digest.as_ref()[..4]);
    format!("{}-{hex}", secret.id)
}

/// Names that are keys of a secret are known only now.
fn check_clashes(entries: &[Entry<'_>]) -> Result<(), MountError> {
    let clashes = paths::clashes(entries.iter().map(|e| e.file.path.as_str()));
    let failures: Vec<ObjectError> = clashes
        .into_iter()
        .map(|clash| ObjectError {
            reason: Reason::Precondition,
            object: entries[clash.later].object.to_owned(),
            field: "allKeys",
            message: format!(
                "a key's file collides with a file of object {:?}: give one of them an objectAlias",
                entries[clash.earlier].object
            ),
        })
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(MountError::of_objects(&failures))
    }
}

fn placeholder() -> MountResponse {
    let text = b"Every object of this volume is optional, and none exists now.\n";
    MountResponse {
        object_version: vec![ObjectVersion {
            id: PLACEHOLDER.into(),
            version: "none".into(),
        }],
        files: vec![File {
            path: PLACEHOLDER.into(),
            mode: 0o444,
            contents: text.as_slice().into(),
        }],
        error: None,
    }
}
