//! Step 6, select: extracts the contents of each file from the values of the secrets.

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE, HEXLOWER_PERMISSIVE};
use serde_json::Value;
use zeroize::Zeroize;

use super::error::{MountError, ObjectError, Reason};
use super::fetch::FetchedObject;
use super::json_numbers::NumberLiterals;
use crate::class::file_names;
use crate::class::jmespath::EvaluationSteps;
use crate::class::objects::{Content, Encoding, Object};
use crate::cloud::SecretValue;
use crate::util::secret_bytes::SecretBytes;

/// Maximum size of all files, in bytes. The driver rejects responses over 4 MiB with a code that leaves the
/// pod an empty directory; the difference is room for the other parts of the message.
const MAX_RESPONSE: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Bytes of the response per file in addition to paths and contents: tags, lengths, mode, version.
const FILE_OVERHEAD: usize = 64;
/// Some editors write it at the beginning of a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The room that is left in a volume, in bytes, and the steps that are left to its expressions.
///
/// Each selected file uses up some of it, so that a list of files is rejected before it exhausts the memory.
#[derive(Clone, Copy, Debug)]
pub struct VolumeRoom {
    bytes: usize,
    steps: EvaluationSteps,
}

impl Default for VolumeRoom {
    fn default() -> Self {
        Self {
            bytes: MAX_RESPONSE,
            steps: EvaluationSteps::default(),
        }
    }
}

impl VolumeRoom {
    /// Uses up the room for a file.
    ///
    /// # Errors
    /// If it does not fit.
    fn reserve(&mut self, file: &SelectedFile) -> Result<(), String> {
        let size = file.contents.len() + 2 * file.path.len() + FILE_OVERHEAD;
        let left = self.bytes.checked_sub(size);
        self.bytes = left.unwrap_or(0);
        left.map(drop).ok_or_else(|| {
            format!(
                "files too large for one volume: the driver accepts at most {MAX_RESPONSE} bytes; use \
                 several SecretProviderClasses"
            )
        })
    }

    fn is_used_up(self) -> bool {
        self.bytes == 0
    }
}

/// A file of a volume.
#[derive(Debug)]
pub struct SelectedFile {
    /// Relative path in the volume.
    pub path: String,
    /// Mode, if the object sets one.
    pub mode: Option<u32>,
    /// Its bytes.
    pub contents: SecretBytes,
    /// The expression or key that selected it, which is part of its object version.
    pub origin: String,
}

/// Selects the files of all objects, each with its object.
///
/// # Errors
/// One error that lists all objects that failed.
pub(super) fn select(
    fetched: &[FetchedObject],
) -> Result<Vec<(&FetchedObject, SelectedFile)>, MountError> {
    let mut failures = Vec::new();
    let mut files = Vec::with_capacity(fetched.len());
    let mut room = VolumeRoom::default();
    for item in fetched {
        let Some(version) = &item.version else {
            continue;
        };
        // Most objects are one file.
        let selected = match &item.object.content {
            Content::Whole { path, extracts } if extracts.is_empty() => whole(
                &item.object,
                path,
                item.object.encoding,
                &version.value,
                &mut room,
            )
            .map(|file| files.push((item, file))),
            _ => select_object(&item.object, &version.value, &mut room)
                .map(|selected| files.extend(selected.into_iter().map(|file| (item, file)))),
        };
        failures.extend(selected.err());
        if room.is_used_up() {
            break; // All further objects would fail too.
        }
    }
    if failures.is_empty() {
        Ok(files)
    } else {
        Err(MountError::of_objects(&failures))
    }
}

/// The whole value as a file.
fn whole(
    object: &Object,
    path: &str,
    encoding: Encoding,
    value: &SecretValue,
    room: &mut VolumeRoom,
) -> Result<SelectedFile, ObjectError> {
    let failure = |field, message| ObjectError {
        reason: Reason::Precondition,
        object: object.name.clone(),
        field,
        message,
    };
    let file = SelectedFile {
        path: path.to_owned(),
        mode: object.mode,
        contents: decode(encoding, value).map_err(|m| failure("encoding", m))?,
        origin: String::new(),
    };
    room.reserve(&file).map_err(|m| failure("objectName", m))?;
    Ok(file)
}

/// Selects the files of one object from its value.
///
/// # Errors
/// If the value does not have what the object selects. The message contains no part of the value.
pub fn select_object(
    object: &Object,
    value: &SecretValue,
    room: &mut VolumeRoom,
) -> Result<Vec<SelectedFile>, ObjectError> {
    let failure = |field, message: String| ObjectError {
        reason: Reason::Precondition,
        object: object.name.clone(),
        field,
        message,
    };
    match &object.content {
        Content::Whole { path, extracts } => {
            // With extracts, the whole value is written as it is: the encoding applies to the extracts.
            let encoding = if extracts.is_empty() {
                object.encoding
            } else {
                Encoding::Utf8
            };
            let mut files = vec![whole(object, path, encoding, value, room)?];
            if extracts.is_empty() {
                return Ok(files);
            }
            let json = SecretJson::parse(value).map_err(|m| failure("jmesPath", m))?;
            for extract in extracts {
                let expression = extract.expression.as_str();
                let result = extract.expression.search(&json.value.0, &mut room.steps);
                let result = result.map(ZeroizedJson).map_err(|why| {
                    failure(
                        "jmesPath",
                        format!("{expression:?} cannot be evaluated: {why}"),
                    )
                })?;
                if result.0.is_null() {
                    if object.optional {
                        continue;
                    }
                    // Whether such a key exists is not told: the names of keys are part of the secret.
                    let hint = if expression.contains('.') && !expression.contains('"') {
                        "; a key with a dot in its name needs quotes: '\"ca.crt\"'"
                    } else {
                        ""
                    };
                    let message = format!(
                        "{expression:?} matches nothing in the secret's JSON: check the names, or set \
                         optional: true{hint}"
                    );
                    return Err(ObjectError {
                        reason: Reason::NotFound,
                        ..failure("jmesPath", message)
                    });
                }
                let contents = json
                    .text_of(&result.0)
                    .and_then(|text| decode(object.encoding, &text))
                    .map_err(|m| failure("encoding", format!("{expression:?}: {m}")))?;
                let file = SelectedFile {
                    path: extract.path.clone(),
                    mode: extract.mode.or(object.mode),
                    contents,
                    origin: format!("jmesPath:{expression}"),
                };
                room.reserve(&file).map_err(|m| failure("jmesPath", m))?;
                files.push(file);
            }
            Ok(files)
        }
        Content::AllKeys { folder } => {
            let json = SecretJson::parse(value).map_err(|m| failure("allKeys", m))?;
            let Value::Object(keys) = &json.value.0 else {
                return Err(failure(
                    "allKeys",
                    "the secret is JSON, but not an object".into(),
                ));
            };
            if keys.is_empty() && !object.optional {
                return Err(failure(
                    "allKeys",
                    "the secret's JSON object has no keys".into(),
                ));
            }
            let mut files = Vec::with_capacity(keys.len());
            for (index, (key, value)) in keys.iter().enumerate() {
                if value.is_null() {
                    if object.optional {
                        continue;
                    }
                    let message = format!(
                        "key number {} (in alphabetical order) of the secret's JSON is null: give it a value, \
                         or set optional: true",
                        index + 1
                    );
                    return Err(ObjectError {
                        reason: Reason::NotFound,
                        ..failure("allKeys", message)
                    });
                }
                // Keys are part of the secret, so the message gives only the position.
                if file_names::check(key).is_err() || key.contains('/') {
                    let message = format!(
                        "key number {} (in alphabetical order) of the secret's JSON is not a valid file \
                         name: use jmesPath with an objectAlias for it",
                        index + 1
                    );
                    return Err(failure("allKeys", message));
                }
                let file = SelectedFile {
                    path: folder
                        .as_ref()
                        .map_or_else(|| key.clone(), |f| format!("{f}/{key}")),
                    mode: object.mode,
                    contents: json
                        .text_of(value)
                        .and_then(|text| decode(object.encoding, &text))
                        .map_err(|m| {
                            failure("encoding", format!("key number {}: {m}", index + 1))
                        })?,
                    origin: format!("key:{key}"),
                };
                room.reserve(&file).map_err(|m| failure("allKeys", m))?;
                files.push(file);
            }
            Ok(files)
        }
    }
}

/// Decodes text; binary secrets need no decoding.
fn decode(encoding: Encoding, value: &SecretValue) -> Result<SecretBytes, String> {
    let bytes = match value {
        SecretValue::Text(bytes) => bytes,
        SecretValue::Binary(bytes) if encoding == Encoding::Utf8 => bytes,
        SecretValue::Binary(_) => {
            return Err("the secret is binary and needs no decoding: remove the encoding".into());
        }
    };
    let text = bytes.expose().trim_ascii();
    let decoded = match encoding {
        Encoding::Utf8 => return Ok(bytes.clone()),
        Encoding::Base64 => BASE64
            .decode(text)
            .or_else(|_| BASE64_MIME_PERMISSIVE.decode(text)),
        Encoding::Hex => HEXLOWER_PERMISSIVE.decode(text),
    };
    decoded.map(SecretBytes::new).map_err(|error| {
        let name = if encoding == Encoding::Hex {
            "hexadecimal"
        } else {
            "Base64"
        };
        format!("the value is not {name} (at byte {})", error.position)
    })
}

/// The parsed JSON of a secret.
struct SecretJson {
    value: ZeroizedJson,
    literals: NumberLiterals,
}

impl SecretJson {
    /// Parses text, also text that is stored as a binary secret or begins with a byte order mark.
    fn parse(value: &SecretValue) -> Result<Self, String> {
        let text = value.bytes().expose();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        // The message of serde_json quotes the value, so only the position is reported.
        let value =
            serde_json::from_slice(text)
                .map(ZeroizedJson)
                .map_err(|error| match value {
                    SecretValue::Binary(_) => "the secret is binary, and not JSON".to_owned(),
                    SecretValue::Text(_) => format!(
                        "the secret is not JSON (line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                })?;
        Ok(Self {
            literals: NumberLiterals::of(text),
            value,
        })
    }

    /// A string as it is; any other value as compact JSON.
    fn text_of(&self, value: &Value) -> Result<SecretValue, String> {
        Ok(SecretValue::Text(match value {
            Value::String(text) => SecretBytes::new(text.as_bytes().to_vec()),
            other => SecretBytes::new(self.literals.print(other)?),
        }))
    }
}

/// JSON whose strings are zeroized on drop.
struct ZeroizedJson(Value);

impl Drop for ZeroizedJson {
    fn drop(&mut self) {
        zeroize(&mut self.0);
    }
}

fn zeroize(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(zeroize),
        Value::Object(keys) => keys.values_mut().for_each(zeroize),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
