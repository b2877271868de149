//! Step 7, response: builds the response to the driver from the selected files, sorted by path.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::error::{MountError, ObjectError, Reason};
use super::fetch::FetchedObject;
use super::select::SelectedFile;
use crate::class::file_names;
use crate::class::objects::Content;
use crate::proto::{File, MountResponse, ObjectVersion};

/// The only file of a volume whose objects are all optional and missing: the driver fails a mount without an
/// object version, and keeps the old files if the response has none.
const PLACEHOLDER: &str = ".dew-provider";

/// Builds the response.
///
/// # Errors
/// If keys of secrets (`allKeys`) collide with other files.
pub(super) fn response(
    fetched: &[FetchedObject],
    mut files: Vec<(&FetchedObject, SelectedFile)>,
    default_mode: u32,
) -> Result<MountResponse, MountError> {
    // Step 2 has checked all other names, before any call to the cloud.
    let has_keys = |item: &FetchedObject| matches!(item.object.content, Content::AllKeys { .. });
    if fetched.iter().any(has_keys) {
        check_clashes(&files)?;
    }
    if files.is_empty() {
        return Ok(placeholder());
    }
    files.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
    let mut response = MountResponse {
        object_version: Vec::with_capacity(files.len()),
        files: Vec::with_capacity(files.len()),
        error: None,
    };
    let mut buffer = Vec::new();
    for (item, file) in files {
        let mode = file.mode.unwrap_or(default_mode);
        response.object_version.push(ObjectVersion {
            id: file.path.clone(),
            version: object_version(item, &file, mode, &mut buffer),
        });
        response.files.push(File {
            path: file.path,
            mode: mode as i32,
            contents: file.contents.into_bytes(),
        });
    }
    Ok(response)
}

/// `<vN>-<8 hex>`, which changes whenever a byte of the file may change, but is not derived from the value.
///
/// The value of a version never changes, so its location, number and date and the settings of the file
/// determine the bytes. A hash of the value would let readers of pod status objects guess short
/// passwords. `buffer` is used for what is hashed: one call of the hash function is cheaper than many.
fn object_version(
    item: &FetchedObject,
    file: &SelectedFile,
    mode: u32,
    buffer: &mut Vec<u8>,
) -> String {
    let Some(version) = &item.version else {
        return String::new();
    };
    buffer.clear();
    let mut add = |part: &[u8]| {
        buffer.extend_from_slice(&(part.len() as u64).to_be_bytes());
        buffer.extend_from_slice(part);
    };
    add(item.caller.region.as_str().as_bytes());
    let project = item.caller.project.as_deref();
    add(project.unwrap_or_default().as_bytes());
    add(item.object.name.as_bytes());
    add(version.id.as_bytes());
    add(&version.create_time.to_be_bytes());
    add(file.path.as_bytes());
    add(&mode.to_be_bytes());
    add(file.origin.as_bytes());
    add(&[item.object.encoding as u8]);
    let digest = digest(&SHA256, buffer);
    let mut text = String::with_capacity(version.id.len() + 9);
    text.push_str(&version.id);
    text.push('-');
    HEXLOWER.encode_append(&digest.as_ref()[..4], &mut text);
    text
}

/// Checks the file names that come from keys of secrets, which are known only now.
fn check_clashes(files: &[(&FetchedObject, SelectedFile)]) -> Result<(), MountError> {
    let clashes = file_names::clashes(files.iter().map(|(_, file)| file.path.as_str()));
    let object = |index: usize| &files[index].0.object.name;
    let failures: Vec<ObjectError> = clashes
        .into_iter()
        .map(|clash| ObjectError {
            reason: Reason::Precondition,
            object: object(clash.later).clone(),
            field: "allKeys",
            message: format!(
                "the file of a key collides with a file of object {:?}: set an objectAlias for one of them",
                object(clash.earlier)
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
    let text = b"All objects of this volume are optional, and none of them exists.\n";
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
